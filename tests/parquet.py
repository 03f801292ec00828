"""Parquet files that are small and expand to much."""

import io
from typing import Any

import pyarrow as pa
from pyarrow import parquet


def repeated(value: str, rows: int) -> pa.Array:
    """Return a column with one value in all rows, which is held once."""
    return pa.DictionaryArray.from_arrays(pa.array([0] * rows, pa.int32()), [value])


def pack(columns: dict[str, Any], **options: Any) -> bytes:
    """Return these columns as a file with dictionaries and pages of any size; `options` are of `write_table`."""
    file = io.BytesIO()
    defaults: dict[str, Any] = {"compression": "zstd", "dictionary_pagesize_limit": 2**30, "data_page_size": 2**30}
    parquet.write_table(pa.table(columns), file, **(defaults | options))
    return file.getvalue()
