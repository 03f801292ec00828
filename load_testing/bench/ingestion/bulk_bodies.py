"""The same rows as a body in each format that bulk uploads may have."""

import csv
import gzip
import io
from collections.abc import Callable
from typing import Any, NamedTuple

import orjson
import pyarrow as pa
from backports import zstd
from pyarrow import parquet

Rows = list[dict[str, Any]]


class Body(NamedTuple):
    """What is sent, with its headers."""

    content: bytes
    headers: dict[str, str]


def _ndjson(rows: Rows) -> bytes:
    return b"".join(orjson.dumps(row) + b"\n" for row in rows)


def _csv(rows: Rows) -> bytes:
    file = io.StringIO()
    writer = csv.DictWriter(file, rows[0])
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue().encode()


def _parquet(rows: Rows) -> bytes:
    file = io.BytesIO()
    parquet.write_table(pa.Table.from_pylist(rows), file)
    return file.getvalue()


def _plain(media_type: str, write: Callable[[Rows], bytes]) -> Callable[[Rows], Body]:
    return lambda rows: Body(write(rows), {"Content-Type": media_type})


def _compressed(encoding: str, compress: Callable[[bytes], bytes]) -> Callable[[Rows], Body]:
    headers = {"Content-Type": "application/x-ndjson", "Content-Encoding": encoding}
    return lambda rows: Body(compress(_ndjson(rows)), headers)


FORMATS: dict[str, Callable[[Rows], Body]] = {
    "NDJSON": _plain("application/x-ndjson", _ndjson),
    "NDJSON, gzip": _compressed("gzip", lambda content: gzip.compress(content, 6)),
    "NDJSON, zstd": _compressed("zstd", zstd.compress),
    "JSON array": _plain("application/json", orjson.dumps),
    "CSV": _plain("text/csv", _csv),
    "Parquet": _plain("application/vnd.apache.parquet", _parquet),
}
