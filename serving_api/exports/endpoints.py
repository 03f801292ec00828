"""The endpoints of exports, and their description in OpenAPI: parse, delegate, return."""

import re
import time
from typing import Annotated, Any, cast

import orjson
import structlog
from fastapi import Depends, Query, Request, Response

from core.web.negotiation import Router
from core.web.openapi import Responses, header
from core.web.problems import Unavailable
from serving_api.columns import COLUMNS, EXAMPLE_ITEM, Kind, csv_header
from serving_api.dependencies import GUARDS, DatasetsDep, ReplicaDep, replica_headers
from serving_api.exports.formats import ARROW, ARROW_STREAM, CSV, CSV_FOR_SPREADSHEETS, NDJSON, PARQUET, Format
from serving_api.exports.repository import ExportQuery, export_query
from serving_api.exports.service import ExportRequest, Exports
from serving_api.file_response import (
    PreconditionFailed,
    RangeNotSatisfiable,
    Sending,
    ServedFile,
    send_file,
    strong_tags,
)
from serving_api.metrics import EXPORT_BYTES, EXPORTS
from serving_api.replica.replica import Replica
from serving_api.replica.repository import Point
from serving_api.texts.parameters import CsvParameters, ExportParameters
from serving_api.texts.schemas import REPLICA_HEADERS, UNCHANGED, mismatch, refuses, wrong_parameter

_ITEM_LINE = orjson.dumps(EXAMPLE_ITEM, option=orjson.OPT_APPEND_NEWLINE).decode()


def _csv_cell(name: str) -> str:
    value, kind = COLUMNS[name].example, COLUMNS[name].kind
    text = value if isinstance(value, str) else orjson.dumps(value).decode()
    return '"' + text.replace('"', '""') + '"' if kind in {Kind.TEXT, Kind.JSON} else text


_CSV_LINES = f"{csv_header()}{','.join(map(_csv_cell, COLUMNS))}\r\n"
_ETAG = '"9f86d081884c7d659a2feaa0c55ad015-5d41402abc4b2a76"'
_HEADERS = REPLICA_HEADERS | {
    "ETag": header("For If-None-Match, If-Match and If-Range.", _ETAG),
    "Accept-Ranges": header("Parts of the file may be asked for.", "bytes"),
    "Content-Disposition": header("A name for the file.", 'attachment; filename="toxicity-91342.parquet"'),
}
_PART_HEADERS = _HEADERS | {"Content-Range": header("Which part it is.", "bytes 0-65535/131072")}
_TEXT: dict[str, Any] = {"type": "string"}
_BINARY: dict[str, Any] = {"type": "string", "format": "binary"}


def _responses(format_: Format, schema: dict[str, Any], example: str) -> Responses:
    content = {format_.media_type: {"schema": schema, "example": example}}
    return {
        200: {"description": "The file.", "content": content, "headers": _HEADERS},
        206: {"description": "The part that `Range` asks for.", "content": content, "headers": _PART_HEADERS},
        **UNCHANGED,
        **refuses(
            mismatch("label", "unknown_label", "'spam' is not one of: toxic, non_toxic."),
            PreconditionFailed(_ETAG),
            wrong_parameter("min_agreement", "less_than_equal", "min_agreement must be between 0 and 1 (got 8)."),
            Unavailable("Too many exports are under way.", code="too_busy", retry_after_seconds=5),
            RangeNotSatisfiable(131_072),
        ),
    }


PARQUET_RESPONSES = _responses(PARQUET, _BINARY, "PAR1…PAR1")
ARROW_RESPONSES = _responses(ARROW, _BINARY, "ARROW1…ARROW1")
STREAM_RESPONSES = _responses(ARROW_STREAM, _BINARY, "\u00ff\u00ff\u00ff\u00ff…")
NDJSON_RESPONSES = _responses(NDJSON, _TEXT, _ITEM_LINE)
CSV_RESPONSES = _responses(CSV, _TEXT, _CSV_LINES)

log = structlog.get_logger()


async def _exports(request: Request) -> Exports:
    return cast(Exports, request.app.state.exports)


ExportsDep = Annotated[Exports, Depends(_exports)]
Parameters = Annotated[ExportParameters, Query()]

router = Router(dependencies=GUARDS, tags=["exports"], default_response_class=Response)


@router.get("/export.parquet", summary="Labelled texts as Parquet", responses=PARQUET_RESPONSES)
async def export_parquet(
    request: Request, parameters: Parameters, exports: ExportsDep, replica: ReplicaDep, datasets: DatasetsDep
) -> Response:
    """Get the chosen texts of one version as Parquet, compressed with zstd.

    `votes`, `metadata` and `enrichment` are JSON texts; times are UTC. Without `order` the rows come as they lie
    in the replica, roughly the oldest label first. pandas, polars, DuckDB and fsspec can read parts of the file.
    """
    return await _export(request, exports, replica, export_query(parameters, datasets), PARQUET)


@router.get("/export.arrow", summary="Labelled texts as an Arrow file", responses=ARROW_RESPONSES)
async def export_arrow(
    request: Request, parameters: Parameters, exports: ExportsDep, replica: ReplicaDep, datasets: DatasetsDep
) -> Response:
    """Get the chosen texts of one version as an Arrow file.

    `polars.read_ipc` and `pandas.read_feather` read it. Columns and order are those of `/export.parquet`.
    """
    return await _export(request, exports, replica, export_query(parameters, datasets), ARROW)


@router.get("/export.arrows", summary="Labelled texts as an Arrow stream", responses=STREAM_RESPONSES)
async def export_arrows(
    request: Request, parameters: Parameters, exports: ExportsDep, replica: ReplicaDep, datasets: DatasetsDep
) -> Response:
    """Get the chosen texts of one version as an Arrow stream.

    `pyarrow.ipc.open_stream` reads it. Columns and order are those of `/export.parquet`.
    """
    return await _export(request, exports, replica, export_query(parameters, datasets), ARROW_STREAM)


@router.get("/export.ndjson", summary="Labelled texts as NDJSON", responses=NDJSON_RESPONSES)
async def export_ndjson(
    request: Request, parameters: Parameters, exports: ExportsDep, replica: ReplicaDep, datasets: DatasetsDep
) -> Response:
    """Get the chosen texts of one version as lines, each an item of `GET /texts` without `highlights`.

    Order is that of `/export.parquet`.
    """
    return await _export(request, exports, replica, export_query(parameters, datasets), NDJSON)


@router.get("/export.csv", summary="Labelled texts as CSV", responses=CSV_RESPONSES)
async def export_csv(
    request: Request,
    parameters: Annotated[CsvParameters, Query()],
    exports: ExportsDep,
    replica: ReplicaDep,
    datasets: DatasetsDep,
) -> Response:
    """Get the chosen texts of one version as CSV with a header, quoted as in RFC 4180.

    `""` is an empty text, and nothing is null. `votes`, `metadata` and `enrichment` are JSON. With
    `spreadsheet=true` no cell can be taken for a formula. Order is that of `/export.parquet`.
    """
    format_ = CSV_FOR_SPREADSHEETS if parameters.spreadsheet else CSV
    return await _export(request, exports, replica, export_query(parameters, datasets), format_)


async def _export(
    request: Request, exports: Exports, replica: Replica, query: ExportQuery, format_: Format
) -> Response:
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
