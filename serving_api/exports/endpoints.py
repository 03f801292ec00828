"""The paths of exports: parse, delegate, return."""

from typing import Annotated

from fastapi import Query, Request, Response

from core.web.negotiation import Router
from serving_api.dependencies import GUARDS, DatasetsDep, ExportsDep, ReplicaDep
from serving_api.exports import documentation as docs
from serving_api.exports.formats import ARROW, CSV, CSV_FOR_SPREADSHEETS, NDJSON, PARQUET, Format
from serving_api.exports.repository import ExportQuery, export_query
from serving_api.exports.response import ExportResponse, export_etag, export_headers
from serving_api.exports.service import Exports
from serving_api.replica.replica import Replica
from serving_api.responses import is_held
from serving_api.texts.parameters import CsvParameters, ExportParameters
from serving_api.texts.repository import Point


def make_export_router() -> Router:
    """Return the paths of exports."""
    router = Router(dependencies=GUARDS, tags=["exports"], default_response_class=Response)
    for format_ in (PARQUET, ARROW, NDJSON):
        _add_path(router, format_)
    router.add_api_route("/export.csv", export_csv, summary="Labelled texts as CSV", responses=docs.EXPORTS["csv"])
    return router


async def export_csv(
    request: Request,
    parameters: Annotated[CsvParameters, Query()],
    exports: ExportsDep,
    replica: ReplicaDep,
    datasets: DatasetsDep,
) -> Response:
    """Stream the chosen texts as CSV with a header, all of one version, from the first row to the last.

    Quoted as RFC 4180 has it: `""` is an empty text, and nothing is null. `votes`, `metadata` and `enrichment` are
    JSON. With `spreadsheet=true` no cell can be taken for a formula. Order and ends are as in the other exports.
    """
    format_ = CSV_FOR_SPREADSHEETS if parameters.spreadsheet else CSV
    return _export(request, exports, replica, export_query(parameters, datasets), format_)


def _add_path(router: Router, format_: Format) -> None:
    async def export_texts(
        request: Request,
        parameters: Annotated[ExportParameters, Query()],
        exports: ExportsDep,
        replica: ReplicaDep,
        datasets: DatasetsDep,
    ) -> Response:
        return _export(request, exports, replica, export_query(parameters, datasets), format_)

    router.add_api_route(
        f"/export.{format_.name}",
        export_texts,
        name=f"export_{format_.name}",
        summary=f"Labelled texts as {docs.TITLES[format_.name]}",
        description=docs.DESCRIPTIONS[format_.name],
        responses=docs.EXPORTS[format_.name],
    )


def _export(request: Request, exports: Exports, replica: Replica, query: ExportQuery, format_: Format) -> Response:
    state = replica.loaded()
    point = Point(state.identity, state.version)
    headers = export_headers(replica, point, query, format_)
    if is_held(request, export_etag(point, query, format_).removeprefix("W/")):
        del headers["Content-Type"], headers["Content-Disposition"]
        return Response(status_code=304, headers=headers)
    if request.method == "HEAD":
        answer = Response(headers=headers)
        del answer.headers["content-length"]  # nobody knows it
        return answer
    export = exports.begin(query, format_)
    return ExportResponse(export, replica, idle_seconds=exports.idle_seconds, chunk_seconds=exports.chunk_seconds)
