"""The endpoints of exports, and their description in OpenAPI: parse, delegate, return."""

import re
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Annotated, Any, cast

import orjson
import structlog
from fastapi import Depends, Query, Request, Response

from core.web.negotiation import Router
from core.web.openapi import Responses, header
from core.web.problems import Unavailable
from serving_api.columns import COLUMNS, EXAMPLE_ITEM, Kind, csv_header
from serving_api.dependencies import GUARDS, replica_headers
from serving_api.exports.export_files import (
    ARROW,
    ARROW_STREAM,
    CSV,
    CSV_FOR_SPREADSHEETS,
    NDJSON,
    PARQUET,
    Format,
)
from serving_api.exports.repository import export_query
from serving_api.exports.service import ExportRequest, Exports
from serving_api.file_response import Sending, ServedFile, describe_file, send_file, strong_tags
from serving_api.metrics import EXPORT_BYTES, EXPORTS
from serving_api.replica.replica import Replica
from serving_api.replica.repository import Point
from serving_api.texts.parameters import CsvParameters, ExportParameters
from serving_api.texts.query import Mismatch
from serving_api.texts.schemas import REPLICA_HEADERS, wrong_parameter

_ITEM_LINE = orjson.dumps(EXAMPLE_ITEM, option=orjson.OPT_APPEND_NEWLINE).decode()


def _csv_cell(name: str) -> str:
    value, kind = COLUMNS[name].example, COLUMNS[name].kind
    text = value if isinstance(value, str) else orjson.dumps(value).decode()
    return '"' + text.replace('"', '""') + '"' if kind in {Kind.TEXT, Kind.JSON} else text


_CSV_LINES = f"{csv_header()}{','.join(map(_csv_cell, COLUMNS))}\r\n"
_HEADERS = REPLICA_HEADERS | {
    "ETag": header(
        "For If-None-Match, If-Match and If-Range.", '"9f86d081884c7d659a2feaa0c55ad015-5d41402abc4b2a76"'
    )
}
_TEXT: dict[str, Any] = {"type": "string"}
_BINARY: dict[str, Any] = {"type": "string", "format": "binary"}


def _responses(format_: Format, schema: dict[str, Any], example: str) -> Responses:
    return describe_file(
        format_.media_type,
        schema,
        example,
        _HEADERS,
        Mismatch("label", "unknown_label", "label 'spam' is not one of: toxic, non_toxic."),
        wrong_parameter("min_agreement", "less_than_equal", "min_agreement must be between 0 and 1 (got 8)."),
        Unavailable("Too many exports are under way.", code="too_busy", retry_after_seconds=5),
    )


PARQUET_RESPONSES = _responses(PARQUET, _BINARY, "PAR1…PAR1")
ARROW_RESPONSES = _responses(ARROW, _BINARY, "ARROW1…ARROW1")
STREAM_RESPONSES = _responses(ARROW_STREAM, _BINARY, "\u00ff\u00ff\u00ff\u00ff…")
NDJSON_RESPONSES = _responses(NDJSON, _TEXT, _ITEM_LINE)
CSV_RESPONSES = _responses(CSV, _TEXT, _CSV_LINES)

log = structlog.get_logger()


Parameters = Annotated[ExportParameters, Query()]
Export = Callable[[ExportParameters, Format], Awaitable[Response]]


async def _exporter(request: Request) -> Export:
    return partial(_export, request)


ExportDep = Annotated[Export, Depends(_exporter)]

router = Router(dependencies=GUARDS, tags=["exports"], default_response_class=Response)


@router.get("/export.parquet", summary="Labelled texts as Parquet", responses=PARQUET_RESPONSES)
async def export_parquet(parameters: Parameters, export: ExportDep) -> Response:
    """Get the chosen texts of one version as Parquet, compressed with zstd.

    `votes`, `metadata` and `enrichment` are JSON texts; times are UTC. Without `order` the rows come as they lie
    in the replica, roughly the oldest label first. pandas, polars, DuckDB and fsspec can read parts of the file.
    """
    return await export(parameters, PARQUET)


@router.get("/export.arrow", summary="Labelled texts as an Arrow file", responses=ARROW_RESPONSES)
async def export_arrow(parameters: Parameters, export: ExportDep) -> Response:
    """Get the chosen texts of one version as an Arrow file.

    `polars.read_ipc` and `pandas.read_feather` read it. Columns and order are those of `/export.parquet`.
    """
    return await export(parameters, ARROW)


@router.get("/export.arrows", summary="Labelled texts as an Arrow stream", responses=STREAM_RESPONSES)
async def export_arrows(parameters: Parameters, export: ExportDep) -> Response:
    """Get the chosen texts of one version as an Arrow stream.

    `pyarrow.ipc.open_stream` reads it. Columns and order are those of `/export.parquet`.
    """
    return await export(parameters, ARROW_STREAM)


@router.get("/export.ndjson", summary="Labelled texts as NDJSON", responses=NDJSON_RESPONSES)
async def export_ndjson(parameters: Parameters, export: ExportDep) -> Response:
    """Get the chosen texts of one version as lines, each an item of `GET /texts` without `highlights`.

    Order is that of `/export.parquet`.
    """
    return await export(parameters, NDJSON)


@router.get("/export.csv", summary="Labelled texts as CSV", responses=CSV_RESPONSES)
async def export_csv(parameters: Annotated[CsvParameters, Query()], export: ExportDep) -> Response:
    """Get the chosen texts of one version as CSV with a header, quoted as in RFC 4180.

    `""` is an empty text, and nothing is null. `votes`, `metadata` and `enrichment` are JSON. With
    `spreadsheet=true` no cell can be taken for a formula. Order is that of `/export.parquet`.
    """
    return await export(parameters, CSV_FOR_SPREADSHEETS if parameters.spreadsheet else CSV)


async def _export(request: Request, parameters: ExportParameters, format_: Format) -> Response:
    exports, replica = cast(Exports, request.app.state.exports), cast(Replica, request.app.state.replica)
    query = export_query(parameters, request.app.state.datasets)
    conditions = [request.headers.get(name) for name in ("if-range", "if-match")]
    etags = [tag for header in conditions for tag in strong_tags(header)]
    continues = request.method == "GET" and "range" in request.headers and not etags
    wanted = ExportRequest(query, format_, etags, continues)
    state = replica.loaded()
    point = Point(state.identity, state.version)
    if not etags and (held := _held_etag(request, wanted.rows_at(point))):
        return Response(status_code=304, headers=replica_headers(replica, point) | {"ETag": held})
    started = time.perf_counter()
    export = await exports.get(wanted)

    def observe(result: str, sent_bytes: int) -> None:
        EXPORTS.labels(format_.name, result).inc()
        EXPORT_BYTES.labels(format_.name).inc(sent_bytes)
        seconds = round(time.perf_counter() - started, 3)
        log.info("export.ended", format=format_.name, result=result, bytes=sent_bytes, seconds=seconds)

    version = export.file.version
    served = ServedFile(
        export.size,
        export.file.etag,
        format_.media_type + ("; charset=utf-8" if format_.media_type.startswith("text/") else ""),
        f'attachment; filename="{query.texts.dataset}-{version}.{format_.name}"',
        replica_headers(replica, Point(state.identity, version)),
    )
    sending = Sending(exports.threads, idle_seconds=exports.idle_seconds, on_end=observe)
    try:
        response = await send_file(request, served, export.source, sending)
    except BaseException:
        export.source.close()
        raise
    if request.method == "HEAD" or response.status_code == 304:
        export.source.close()
    return response


def _held_etag(request: Request, rows: str) -> str | None:
    """Return the ETag of these rows that the client holds, in whichever order a process has written them."""
    held = ", ".join(request.headers.getlist("if-none-match"))
    found = re.search(rf'"{rows}-[0-9a-f]+"', held)
    return found[0] if found else None
