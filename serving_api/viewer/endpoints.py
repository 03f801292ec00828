"""The paths of the dataset viewer: parse, delegate, return."""

from typing import Annotated, cast

from fastapi import Depends, Query, Request, Response

from core.web.negotiation import Router
from serving_api.dependencies import GUARDS, ReplicaDep, base_url, is_held, replica_headers
from serving_api.replica.replica import Replica
from serving_api.viewer import parameters as asked
from serving_api.viewer import schemas
from serving_api.viewer.refusals import ViewerRoute
from serving_api.viewer.service import Viewer, ViewerAnswer


async def _viewer(request: Request) -> Viewer:
    return cast(Viewer, request.app.state.viewer)


ViewerDep = Annotated[Viewer, Depends(_viewer)]
ConfigQuery = Annotated[asked.ConfigParameters, Query()]
SplitQuery = Annotated[asked.SplitParameters, Query()]


router = Router(dependencies=GUARDS, tags=["dataset viewer"], route_class=ViewerRoute)


@router.get("/is-valid", summary="What the viewer can do", responses=schemas.RESPONSES["/is-valid"])
async def get_validity(
    request: Request,
    parameters: Annotated[asked.ValidityParameters, Query()],
    viewer: ViewerDep,
    replica: ReplicaDep,
) -> Response:
    """Say what can be done with a dataset, a config or a split: everything, if there is one of this name."""
    return _send(request, replica, await viewer.validity(parameters))


@router.get("/splits", summary="Configs and splits", responses=schemas.RESPONSES["/splits"])
async def get_splits(
    request: Request, parameters: ConfigQuery, viewer: ViewerDep, replica: ReplicaDep
) -> Response:
    """List the configs and their splits: `live` first, then the snapshots of the dataset, the newest first."""
    return _send(request, replica, await viewer.splits(parameters))


@router.get("/first-rows", summary="The first rows of a split", responses=schemas.RESPONSES["/first-rows"])
async def get_first_rows(
    request: Request, parameters: SplitQuery, viewer: ViewerDep, replica: ReplicaDep
) -> Response:
    """Get the first 100 rows of a split, in at most about 1 MB.

    Where they are longer, rows are left out, and if even ten of them are longer, the texts of the last ones are
    cut to 100 bytes: `truncated_cells` names them. `truncated` says whether the split has more than is shown.
    """
    return _send(request, replica, await viewer.first_rows(parameters))


@router.get("/rows", summary="Rows of a split", responses=schemas.RESPONSES["/rows"])
async def get_rows(
    request: Request,
    parameters: Annotated[asked.RowsParameters, Query()],
    viewer: ViewerDep,
    replica: ReplicaDep,
) -> Response:
    """Get rows of a split.

    Live rows are in the order of their labels, oldest first: new labels come at the end, and only a withdrawn
    label moves the rows behind it. Use a snapshot if rows must keep their places.
    """
    return _send(request, replica, await viewer.rows(parameters))


@router.get("/search", summary="Rows that hold words", responses=schemas.RESPONSES["/search"])
async def search_rows(
    request: Request,
    parameters: Annotated[asked.SearchParameters, Query()],
    viewer: ViewerDep,
    replica: ReplicaDep,
) -> Response:
    """Search the texts of a split for words, as `GET /texts` does with `match=words` and `order=relevance`.

    Of live labels the best 1,000 are listed: `partial` is true where there are more. Of a snapshot all are.
    """
    return _send(request, replica, await viewer.search(parameters))


@router.get("/filter", summary="Rows that fit a condition", responses=schemas.RESPONSES["/filter"])
async def filter_rows(
    request: Request,
    parameters: Annotated[asked.RowFilterParameters, Query()],
    viewer: ViewerDep,
    replica: ReplicaDep,
) -> Response:
    """List rows of a split that fit a condition, in the order asked for.

    `where` and `orderby` are parts of SQL with nothing in them but columns, values and comparisons: names may be
    in double quotes, strings are in single ones, times are strings as in RFC 3339, and there are no functions.
    """
    return _send(request, replica, await viewer.filter(parameters))


@router.get("/parquet", summary="Parquet files", responses=schemas.RESPONSES["/parquet"])
async def get_parquet(
    request: Request, parameters: ConfigQuery, viewer: ViewerDep, replica: ReplicaDep
) -> Response:
    """List the Parquet files of snapshots.

    `live` has none here: use `GET /export.parquet`.
    """
    return _send(request, replica, await viewer.parquet(parameters, base_url(request)))


@router.get("/croissant", summary="Croissant description", responses=schemas.RESPONSES["/croissant"])
async def get_croissant(
    request: Request, parameters: ConfigQuery, viewer: ViewerDep, replica: ReplicaDep
) -> Response:
    """Describe a config as Croissant 1.1, with the addresses of its files; without `config` the live labels."""
    return _send(request, replica, await viewer.croissant(parameters, base_url(request)))


@router.get("/size", summary="Rows and bytes", responses=schemas.RESPONSES["/size"])
async def get_size(request: Request, parameters: ConfigQuery, viewer: ViewerDep, replica: ReplicaDep) -> Response:
    """Count rows and bytes.

    `num_bytes_memory` of live rows is their size in Arrow, without validity bitmaps; of snapshots, the size of the
    files' columns before compression. `live` has no Parquet file: 0 bytes.
    """
    return _send(request, replica, await viewer.size(parameters))


@router.get("/info", summary="Metadata", responses=schemas.RESPONSES["/info"])
async def get_info(request: Request, parameters: ConfigQuery, viewer: ViewerDep, replica: ReplicaDep) -> Response:
    """Get the metadata that `datasets.DatasetInfo` holds; the description is the annotators' guidelines."""
    return _send(request, replica, await viewer.info(parameters))


@router.get("/statistics", summary="Statistics of columns", responses=schemas.RESPONSES["/statistics"])
async def get_statistics(
    request: Request, parameters: SplitQuery, viewer: ViewerDep, replica: ReplicaDep
) -> Response:
    """Describe each column: how often labels occur, and the distribution of numbers, times and texts' lengths.

    Strings are `string_label` where there are at most 30, each of them five times on average; else `string_text`.
    `median` of numbers and times is an estimate. The original's `nan_count` counts null.
    """
    return _send(request, replica, await viewer.statistics(parameters))


def _send(request: Request, replica: Replica, answered: ViewerAnswer) -> Response:
    """Send an answer, or 304 to a client that holds it already."""
    headers = {"Cache-Control": "private, no-cache"}
    if answered.point:
        headers = replica_headers(replica, answered.point)
    headers["ETag"] = answered.etag
    if is_held(request, answered.etag):
        return Response(status_code=304, headers=headers)
    return Response(answered.body, headers=headers, media_type="application/json")
