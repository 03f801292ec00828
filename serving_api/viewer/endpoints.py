"""The paths of the dataset viewer: parse, delegate, return."""

from typing import Annotated, cast

from fastapi import Depends, Query, Request, Response

from core.web.negotiation import Router
from serving_api.dependencies import GUARDS, ReplicaDep
from serving_api.replica.replica import Replica
from serving_api.responses import base_url, is_held, replica_headers
from serving_api.viewer import parameters as asked
from serving_api.viewer import schemas
from serving_api.viewer.refusals import ViewerRoute
from serving_api.viewer.service import Viewer, ViewerAnswer


async def _viewer(request: Request) -> Viewer:
    return cast(Viewer, request.app.state.viewer)


ViewerDep = Annotated[Viewer, Depends(_viewer)]
ConfigQuery = Annotated[asked.ConfigParameters, Query()]
SplitQuery = Annotated[asked.SplitParameters, Query()]


def make_viewer_router() -> Router:
    """Return the paths of the dataset viewer."""
    router = Router(dependencies=GUARDS, tags=["dataset viewer"], route_class=ViewerRoute)
    for path, endpoint, summary in (
        ("/is-valid", get_validity, "What the viewer can do"),
        ("/splits", get_splits, "Configs and splits"),
        ("/first-rows", get_first_rows, "The first rows of a split"),
        ("/rows", get_rows, "Rows of a split"),
        ("/search", search_rows, "Rows that hold words"),
        ("/filter", filter_rows, "Rows that fit a condition"),
        ("/parquet", get_parquet, "Parquet files"),
        ("/croissant", get_croissant, "Croissant description"),
        ("/size", get_size, "Rows and bytes"),
        ("/info", get_info, "Metadata"),
        ("/statistics", get_statistics, "Statistics of columns"),
    ):
        router.add_api_route(path, endpoint, summary=summary, responses=schemas.RESPONSES[path])
    return router


async def get_validity(
    request: Request,
    parameters: Annotated[asked.ValidityParameters, Query()],
    viewer: ViewerDep,
    replica: ReplicaDep,
) -> Response:
    """Say what can be done with a dataset, a config or a split: everything, if there is one of this name."""
    return _send(request, replica, await viewer.validity(parameters))


async def get_splits(
    request: Request, parameters: ConfigQuery, viewer: ViewerDep, replica: ReplicaDep
) -> Response:
    """List the configs and their splits: `live` first, then the snapshots of the dataset, the newest first."""
    return _send(request, replica, await viewer.splits(parameters))


async def get_first_rows(
    request: Request, parameters: SplitQuery, viewer: ViewerDep, replica: ReplicaDep
) -> Response:
    """Get the first 100 rows of a split, in at most about 1 MB.

    Where they are longer, rows are left out, and if even ten of them are longer, the texts of the last ones are
    cut to 100 bytes: `truncated_cells` names them. `truncated` says whether the split has more than is shown.
    """
    return _send(request, replica, await viewer.first_rows(parameters))


async def get_rows(
    request: Request,
    parameters: Annotated[asked.RowsParameters, Query()],
    viewer: ViewerDep,
    replica: ReplicaDep,
) -> Response:
    """Get rows of a split.

    Live ones are in the order of their labels, the oldest first, so that what is labelled comes at the end; only
    a label that is withdrawn moves those behind it. To see the same rows again and again, ask for a snapshot.
    """
    return _send(request, replica, await viewer.rows(parameters))


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


async def get_parquet(
    request: Request, parameters: ConfigQuery, viewer: ViewerDep, replica: ReplicaDep
) -> Response:
    """List the Parquet files of snapshots.

    `live` has none, for nobody knows its size before it is written: `GET /export.parquet` writes it.
    """
    return _send(request, replica, await viewer.parquet(parameters, base_url(request)))


async def get_croissant(
    request: Request, parameters: ConfigQuery, viewer: ViewerDep, replica: ReplicaDep
) -> Response:
    """Describe a config as Croissant 1.1, with the addresses of its files; without `config` the live labels."""
    return _send(request, replica, await viewer.croissant(parameters, base_url(request)))


async def get_size(request: Request, parameters: ConfigQuery, viewer: ViewerDep, replica: ReplicaDep) -> Response:
    """Count rows and bytes.

    `num_bytes_memory` is what Arrow takes for live rows, without marks of what is null; of snapshots, what their
    files' columns take before compression. `live` has no Parquet file: 0 bytes.
    """
    return _send(request, replica, await viewer.size(parameters))


async def get_info(request: Request, parameters: ConfigQuery, viewer: ViewerDep, replica: ReplicaDep) -> Response:
    """Get the metadata that `datasets.DatasetInfo` holds; the description is what annotators are told."""
    return _send(request, replica, await viewer.info(parameters))


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
