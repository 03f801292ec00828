"""Serializers that Schemathesis lacks. schemathesis.toml names this module."""

import json
from typing import Any

import schemathesis
from schemathesis import SerializationContext


@schemathesis.serializer(
    "application/x-ndjson",
    "application/jsonl",
    "text/tab-separated-values",
    "application/vnd.apache.parquet",
    "application/parquet",
    "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
    "application/partial-upload",
)
def as_it_is(_: SerializationContext, value: Any) -> bytes:
    """Send text and bytes as they are, and what breaks the schema as JSON."""
    if isinstance(value, str):
        return value.encode("utf-8", "surrogatepass")
    return value if isinstance(value, bytes) else json.dumps(value).encode()
