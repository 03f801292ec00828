"""Values of any format as JSON, exactly: what JSON has no type for becomes text."""

from base64 import b64encode
from datetime import date, time, timedelta
from decimal import Decimal
from math import isfinite, isnan
from typing import Any

import msgspec
import orjson

from ingestion_api.texts.quick_submission import QuickSubmission


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
