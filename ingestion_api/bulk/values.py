"""Values of any format as exact JSON, and as values of metadata.

A rejected row is kept as it was read, before columns are mapped. What has no JSON is not kept: a text could hide
in its string form.
"""

from base64 import b64encode
from datetime import date, time, timedelta
from decimal import Decimal
from math import isfinite, isnan
from typing import Any

import msgspec
import orjson
from pydantic_core import from_json

from core.tables.rows import ROW_BYTES, TOO_LONG, RowRefused
from ingestion_api.texts.schemas import METADATA_CHARACTERS
from ingestion_api.texts.submissions import QuickSubmission

_FIELDS_BYTES = 64 * 1024  # of a rejected row that is kept


def to_exact_json(value: Any) -> str:
    """Return a value as JSON.

    | value | JSON |
    |---|---|
    | bytes that are UTF-8 | their text |
    | other bytes | `{"base64": "…"}` |
    | a date, a time, both | text as in ISO 8601 |
    | a duration | text as in ISO 8601, in days and seconds: `P1DT2.5S` |
    | a decimal, a large integer | a number with all its digits |
    | not a number, infinity | `"NaN"`, `"Infinity"`, `"-Infinity"` |

    Raises:
        TypeError, ValueError, RecursionError: it holds anything else, lone surrogates, or too much.
    """
    return orjson.dumps(_plain(value)).decode()


def _plain(value: Any) -> Any:
    if isinstance(value, QuickSubmission):
        value = {name: field for name, field in msgspec.structs.asdict(value).items() if field is not None}
    if isinstance(value, dict):
        return {name: _plain(field) for name, field in value.items()}
    if isinstance(value, list | tuple):  # a map in Parquet is a list of pairs
        return [_plain(element) for element in value]
    return value if value is None or isinstance(value, str | bool) else _scalar(value)


def _scalar(value: Any) -> Any:
    match value:
        case float() | Decimal() if not isfinite(value):
            return "NaN" if isnan(value) else "Infinity" if value > 0 else "-Infinity"
        case float():
            return value
        case int() | Decimal():
            return orjson.Fragment(str(value))
        case date() | time():  # a datetime is a date
            return value.isoformat()
        case timedelta():
            return msgspec.to_builtins(value)
        case bytes():
            return _text_of(value)
    raise TypeError(f"JSON has no {type(value).__name__}")


def _text_of(value: bytes) -> str | dict[str, str]:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return {"base64": b64encode(value).decode()}


def to_json(fields: Any) -> str | None:
    """Return the row as JSON; None if it could not be read, is over 64 KiB, or holds what JSON cannot say."""
    if isinstance(fields, RowRefused):
        return None
    try:
        encoded = to_exact_json(fields)
    except (TypeError, ValueError, RecursionError):  # lone surrogates, integers of many digits, deep nesting
        return None
    return encoded if len(encoded.encode()) <= _FIELDS_BYTES else None


def to_storable(value: Any) -> Any:
    """Return what a refusal says, without characters that Postgres or JSON cannot hold: it may quote the body."""
    match value:
        case str():
            return value.replace("\0", "\ufffd").encode(errors="replace").decode()
        case dict():
            return {to_storable(name): to_storable(part) for name, part in value.items()}
        case list():
            return [to_storable(part) for part in value]
    return value


_INTEGERS = range(-(2**63), 2**63)


def as_metadata(value: Any, name: str, *, cut: bool) -> bool | int | float | str | None:
    """Return a cell as a value of metadata; None where it is absent. Lists and the like become JSON.

    `cut`: shorten a value that is too long, with `…` at its end.

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
    if not isfinite(value):
        return None if isnan(value) else str(_scalar(value))
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
