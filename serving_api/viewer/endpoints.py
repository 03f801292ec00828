"""The paths of the dataset viewer: parse, delegate, return."""

from collections.abc import Awaitable, Callable
from typing import Annotated

from fastapi import Depends, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute

from core.web.negotiation import Router
from core.web.openapi import explain_parameters
from core.web.problems import Problem
from serving_api.dependencies import GUARDS, base_url, part, replica_headers, send
from serving_api.viewer import schemas
from serving_api.viewer.parameters import (
    ConfigParameters,
    RowFilterParameters,
    RowsParameters,
    SearchParameters,
    SplitParameters,
    ValidityParameters,
)
from serving_api.viewer.schemas import translated
from serving_api.viewer.service import Body, Viewer
from serving_api.viewer.statistics import Statistics

Send = Callable[[Body], Response]


async def _sender(request: Request) -> Send:
    def send_answer(answer: Body) -> Response:
        if isinstance(answer, bytes):
            return send(request, answer, {"Cache-Control": "private, no-cache"})
        headers = replica_headers(request.app.state.replica, answer.point)
        return send(request, answer.body, headers | {"ETag": answer.etag})

    return send_answer


ViewerDep = Annotated[Viewer, part("viewer")]
SendDep = Annotated[Send, Depends(_sender)]
ConfigQuery = Annotated[ConfigParameters, Query()]
ValidityQuery = Annotated[ValidityParameters, Query()]
SplitQuery = Annotated[SplitParameters, Query()]
RowsQuery = Annotated[RowsParameters, Query()]
SearchQuery = Annotated[SearchParameters, Query()]
FilterQuery = Annotated[RowFilterParameters, Query()]


class ViewerRoute(APIRoute):
    """A route whose refusals also have the original's member `error` and header `X-Error-Code`."""

    def get_route_handler(self) -> Callable[[Request], Awaitable[Response]]:  # type: ignore[override]
        """Return the handler."""
        handle = super().get_route_handler()

        async def handle_and_translate(request: Request) -> Response:
            try:
                return await handle(request)
            except RequestValidationError as error:
                raise translated(explain_parameters(request, error)) from error
            except Problem as problem:
                raise translated(problem) from problem.__cause__

        return handle_and_translate


router = Router(dependencies=GUARDS, tags=["dataset viewer"], route_class=ViewerRoute)


@router.get(
    "/is-valid", summary="What the viewer can do", response_model=schemas.Validity, responses=schemas.CONFIG
)
async def get_validity(parameters: ValidityQuery, viewer: ViewerDep, send: SendDep) -> Response:
    """Return the capabilities for a dataset, a config or a split: all of them if it exists."""
    return send(await viewer.validity(parameters))


@router.get("/splits", summary="Configs and splits", response_model=schemas.Splits, responses=schemas.CONFIG)
async def get_splits(parameters: ConfigQuery, viewer: ViewerDep, send: SendDep) -> Response:
    """List the configs and their splits: `live` first, then the snapshots of the dataset, the newest first."""
    return send(await viewer.splits(parameters))


@router.get(
    "/first-rows", summary="The first rows of a split", response_model=schemas.FirstRows, responses=schemas.SPLIT
)
async def get_first_rows(parameters: SplitQuery, viewer: ViewerDep, send: SendDep) -> Response:
    """Get the first 100 rows of a split, in at most about 1 MB.

    If the rows are longer, the last ones are omitted. If ten rows are longer, the texts of the last ones are cut
    to 100 bytes, and `truncated_cells` names their columns. `truncated` is true if anything is omitted or cut.
    """
    return send(await viewer.first_rows(parameters))


@router.get("/rows", summary="Rows of a split", response_model=schemas.RowsPage, responses=schemas.PAGE)
async def get_rows(parameters: RowsQuery, viewer: ViewerDep, send: SendDep) -> Response:
    """Get rows of a split.

    Live rows are in the order of their labels, the oldest first: new labels come at the end, and a withdrawn label
    moves the rows after it. Use a snapshot if rows must keep their positions.
    """
    return send(await viewer.rows(parameters))


@router.get("/search", summary="Rows that hold words", response_model=schemas.RowsPage, responses=schemas.PAGE)
async def search_rows(parameters: SearchQuery, viewer: ViewerDep, send: SendDep) -> Response:
    """Search the texts of a split for words, as `GET /texts` does with `match=words` and `order=relevance`.

    The list has the best 1,000 live labels, and `partial` is true if more match. Of a snapshot it has all.
    """
    return send(await viewer.search(parameters))


@router.get(
    "/filter", summary="Rows that fit a condition", response_model=schemas.RowsPage, responses=schemas.FILTER
)
async def filter_rows(parameters: FilterQuery, viewer: ViewerDep, send: SendDep) -> Response:
    """List rows of a split that fit a condition, in the order of `orderby`.

    `where` and `orderby` are SQL, limited to columns, values and comparisons. Names may be in double quotes,
    strings are in single quotes, and times are strings as in RFC 3339. There are no functions.
    """
    return send(await viewer.filter(parameters))


@router.get("/parquet", summary="Parquet files", response_model=schemas.ParquetFiles, responses=schemas.CONFIG)
async def get_parquet(request: Request, parameters: ConfigQuery, viewer: ViewerDep, send: SendDep) -> Response:
    """List the Parquet files of snapshots.

    `live` has none: use `GET /export.parquet`.
    """
    return send(await viewer.parquet(parameters, base_url(request)))


@router.get(
    "/croissant", summary="Croissant description", response_model=schemas.Croissant, responses=schemas.CONFIG
)
async def get_croissant(request: Request, parameters: ConfigQuery, viewer: ViewerDep, send: SendDep) -> Response:
    """Describe a config, by default the live labels, as Croissant 1.1 with the addresses of its files."""
    return send(await viewer.croissant(parameters, base_url(request)))


@router.get("/size", summary="Rows and bytes", response_model=schemas.Size, responses=schemas.CONFIG)
async def get_size(parameters: ConfigQuery, viewer: ViewerDep, send: SendDep) -> Response:
    """Count rows and bytes.

    `num_bytes_memory` of live rows is their size in Arrow without validity bitmaps. Of snapshots it is the size of
    the files' columns before compression. `live` has no Parquet file: 0 bytes.
    """
    return send(await viewer.size(parameters))


@router.get("/info", summary="Metadata", response_model=schemas.Info, responses=schemas.CONFIG)
async def get_info(parameters: ConfigQuery, viewer: ViewerDep, send: SendDep) -> Response:
    """Get the metadata of `datasets.DatasetInfo`; the description is the annotators' guidelines."""
    return send(await viewer.info(parameters))


@router.get("/statistics", summary="Statistics of columns", response_model=Statistics, responses=schemas.SPLIT)
async def get_statistics(parameters: SplitQuery, viewer: ViewerDep, send: SendDep) -> Response:
    """Describe each column: the frequencies of labels, the distribution of numbers, times and text lengths.

    A column of strings is `string_label` if it has at most 30 values that each occur five times on average, else
    `string_text`. `median` of numbers and times is an estimate. `nan_count` counts null.
    """
    return send(await viewer.statistics(parameters))
