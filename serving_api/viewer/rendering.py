"""Rows and their features as the dataset viewer sends them."""

from collections.abc import Sequence
from typing import Any

import orjson

from serving_api.columns import Kind
from serving_api.texts.parameters import to_text
from serving_api.viewer.columns import Column, features
from serving_api.viewer.parameters import LENGTH
from serving_api.viewer.slices import NumberedRow, Slice

# Of the first rows, as in the original: so many bytes, of rows that are cut to so many bytes a cell if need be.
_FIRST_BYTES = 1_000_000
_FIRST_ROWS_KEPT = 10
_CELL_BYTES = 100


def page(columns: Sequence[Column], found: Slice) -> bytes:
    """Return the body of `/rows`, `/search` and `/filter`."""
    body = {
        "features": features(columns),
        "rows": [_item(columns, row) for row in found.rows],
        "num_rows_total": found.total,
        "num_rows_per_page": LENGTH,
        "partial": not found.whole,
    }
    return orjson.dumps(body)


def first_rows(split: dict[str, str], columns: Sequence[Column], found: Slice) -> bytes:
    """Return the body of `/first-rows`: as large as a browser's page may be; it says what it left out."""
    kept, left = _fitting([_item(columns, row) for row in found.rows])
    _cut(kept, left, columns)
    shortened = any(item["truncated_cells"] for item in kept)
    truncated = shortened or len(kept) < found.total
    return orjson.dumps({**split, "features": features(columns), "rows": kept, "truncated": truncated})


def _fitting(items: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], int]:
    """Return the first items, as many as there is room for, and how much of it is left; some are kept anyway."""
    left = _FIRST_BYTES
    kept: list[dict[str, Any]] = []
    for item in items:
        size = len(orjson.dumps(item))
        if size > left and len(kept) >= _FIRST_ROWS_KEPT:
            break
        kept.append(item)
        left -= size
    return kept, left


def _cut(items: list[dict[str, Any]], left: int, columns: Sequence[Column]) -> None:
    """Shorten the long cells of the last items, as many of these as it takes."""
    texts = [column.name for column in columns if column.is_text]
    for item in reversed(items):
        if left >= 0:
            break
        before = len(orjson.dumps(item))
        for name in texts:
            value = item["row"][name]
            encoded = value.encode() if value else b""
            if len(encoded) > _CELL_BYTES:
                item["row"][name] = encoded[:_CELL_BYTES].decode(errors="ignore")
                item["truncated_cells"].append(name)
        left += before - len(orjson.dumps(item))


def _item(columns: Sequence[Column], row: NumberedRow) -> dict[str, Any]:
    cells = {column.name: _cell(column, value) for column, value in zip(columns, row.values, strict=True)}
    return {"row_idx": row.place, "row": cells, "truncated_cells": []}


def _cell(column: Column, value: Any) -> Any:
    return to_text(value) if column.kind is Kind.MOMENT and value is not None else value
