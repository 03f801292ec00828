"""Reads exports of every format back into the items of GET /texts."""

import csv
import io
import json
from collections.abc import Callable
from typing import Any

import pyarrow as pa
from pyarrow import parquet

Item = dict[str, Any]

_OBJECTS = {"votes", "metadata", "enrichment"}
_NUMBERS = {"agreement", "annotations", "complete", "confidence", "rule_version", "score"}


def _ndjson(body: bytes) -> list[Item]:
    return [json.loads(line) for line in body.decode().split("\n")[:-1]]


def read_csv(body: bytes) -> list[Item]:
    """Return the rows of a CSV file; empty fields are null, because Python's reader makes no difference."""
    rows = csv.DictReader(io.StringIO(body.decode("utf-8-sig"), newline=""), strict=True)
    return [{name: _from_csv(name, value) for name, value in row.items()} for row in rows]


def _from_csv(name: str, value: str) -> Any:
    return json.loads(value) if value and name in _OBJECTS | _NUMBERS else value or None


def _table(table: pa.Table) -> list[Item]:
    assert {str(table.schema.field(name).type) for name in ("received_at", "labelled_at")} == {
        "timestamp[us, tz=UTC]"
    }
    rows: list[Item] = table.to_pylist()
    for row in rows:
        row |= {name: json.loads(row[name]) for name in _OBJECTS}
        row |= {name: f"{row[name]:%Y-%m-%dT%H:%M:%S.%f}Z" for name in ("received_at", "labelled_at")}
    return rows


READ: dict[str, Callable[[bytes], list[Item]]] = {
    "parquet": lambda body: _table(parquet.read_table(io.BytesIO(body))),
    "arrow": lambda body: _table(pa.ipc.open_file(body).read_all()),
    "arrows": lambda body: _table(pa.ipc.open_stream(body).read_all()),
    "ndjson": _ndjson,
    "csv": read_csv,
}


def without_empty_texts(items: list[Item]) -> list[Item]:
    """Return the items as a CSV reader sees them that takes empty texts for null."""
    return [{name: None if value == "" else value for name, value in item.items()} for item in items]
