"""The endpoints of exports: parse, delegate, return."""

import re
import time
from typing import Annotated

import structlog
from fastapi import Query, Request, Response

from core.web.negotiation import Router
from serving_api.dependencies import GUARDS, DatasetsDep, ExportsDep, ReplicaDep
from serving_api.exports import schemas
from serving_api.exports.formats import ARROW, ARROW_STREAM, CSV, CSV_FOR_SPREADSHEETS, NDJSON, PARQUET, Format
from serving_api.exports.repository import ExportQuery, export_query
from serving_api.exports.service import ExportRequest, Exports
from serving_api.file_response import Sending, ServedFile, send_file, strong_tags
from serving_api.metrics import EXPORT_BYTES, EXPORTS
from serving_api.replica.replica import Replica
from serving_api.responses import replica_headers
from serving_api.texts.parameters import CsvParameters, ExportParameters
from serving_api.texts.repository import Point

log = structlog.get_logger()

Parameters = Annotated[ExportParameters, Query()]

router = Router(dependencies=GUARDS, tags=["exports"], default_response_class=Response)


@router.get("/export.parquet", summary="Labelled texts as Parquet", responses=schemas.PARQUET_RESPONSES)
async def export_parquet(
    request: Request, parameters: Parameters, exports: ExportsDep, replica: ReplicaDep, datasets: DatasetsDep
) -> Response:
    """Get the chosen texts of one version as Parquet, compressed with zstd.

    `votes`, `metadata` and `enrichment` are JSON texts; times are UTC. Without `order` the rows come as they lie
    in the replica, roughly the oldest label first. pandas, polars, DuckDB and fsspec can read parts of the file.
    """
    return await _export(request, exports, replica, export_query(parameters, datasets), PARQUET)


@router.get("/export.arrow", summary="Labelled texts as an Arrow file", responses=schemas.ARROW_RESPONSES)
async def export_arrow(
    request: Request, parameters: Parameters, exports: ExportsDep, replica: ReplicaDep, datasets: DatasetsDep
) -> Response:
    """Get the chosen texts of one version as an Arrow file.

    `polars.read_ipc` and `pandas.read_feather` read it. Columns and order are those of `/export.parquet`.
    """
    return await _export(request, exports, replica, export_query(parameters, datasets), ARROW)


@router.get("/export.arrows", summary="Labelled texts as an Arrow stream", responses=schemas.STREAM_RESPONSES)
async def export_arrows(
    request: Request, parameters: Parameters, exports: ExportsDep, replica: ReplicaDep, datasets: DatasetsDep
) -> Response:
    """Get the chosen texts of one version as an Arrow stream.

    `pyarrow.ipc.open_stream` reads it. Columns and order are those of `/export.parquet`.
    """
    return await _export(request, exports, replica, export_query(parameters, datasets), ARROW_STREAM)


@router.get("/export.ndjson", summary="Labelled texts as NDJSON", responses=schemas.NDJSON_RESPONSES)
async def export_ndjson(
    request: Request, parameters: Parameters, exports: ExportsDep, replica: ReplicaDep, datasets: DatasetsDep
) -> Response:
    """Get the chosen texts of one version as lines, each an item of `GET /texts` without `highlights`.

    Order is that of `/export.parquet`.
    """
    return await _export(request, exports, replica, export_query(parameters, datasets), NDJSON)


@router.get("/export.csv", summary="Labelled texts as CSV", responses=schemas.CSV_RESPONSES)
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
