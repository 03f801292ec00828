"""Cells of any format as values of metadata."""

import math
from decimal import Decimal
from typing import Any

from pydantic_core import from_json

from core.tables.rows import ROW_BYTES, TOO_LONG, RowRefused
from ingestion_api.bulk.exact_json import to_exact_json
from ingestion_api.texts.schemas import METADATA_CHARACTERS

_INTEGERS = range(-(2**63), 2**63)


def as_metadata(value: Any, name: str, *, cut: bool) -> bool | int | float | str | None:
    """Return a cell as a value of metadata; None where it is absent. Lists and the like become JSON.

    `cut`: shorten what is too long, with `…` at its end.

    Raises:
        RowRefused: the cell has no exact JSON.
    """
    if value is None or value == "" or isinstance(value, bool):
        return None if value == "" else value
    if isinstance(value, float | Decimal):
        value = _exact_number(value)
    elif isinstance(value, int) and value not in _INTEGERS:
        value = str(value)
    elif not isinstance(value, str | int):
        value = _as_json(value, name)
    if cut and isinstance(value, str) and len(value) > METADATA_CHARACTERS:
        return f"{value[: METADATA_CHARACTERS - 1]}…"
    found: bool | int | float | str | None = value
    return found


def _exact_number(value: float | Decimal) -> int | float | str | None:
    if math.isnan(value):
        return None
    if math.isinf(value):
        return "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, float):
        return value
    if value == value.to_integral_value() and int(value) in _INTEGERS:
        return int(value)
    return float(value) if Decimal(repr(float(value))) == value else format(value, "f")


def _as_json(value: Any, name: str) -> str:
    try:
        words = to_exact_json(value)
    except (TypeError, ValueError, RecursionError):
        raise RowRefused("wrong_type", f"/metadata/{name}: cannot be written as JSON") from None
    if len(words) > ROW_BYTES:
        raise TOO_LONG
    return str(from_json(words)) if isinstance(value, bytes) and words.startswith('"') else words
