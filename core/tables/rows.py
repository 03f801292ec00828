"""Columns, rows and cells of a table, their limits, and refusals."""

import math
from base64 import b64encode
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, time, timedelta
from decimal import Decimal
from typing import Any

import msgspec
import orjson

from core.web.problems import Problem, TooLarge

ROW_BYTES = 1024 * 1024

MOST_COLUMNS = 1000
_HEADER_CHARACTERS = 100_000
_LISTED_COLUMNS = 30
_LISTED_CHARACTERS = 100


class RowRefused(Exception):
    """One row cannot be read. `cells`: those that can, with None for the others; None if there are none."""

    def __init__(self, code: str, detail: str, cells: tuple[Any, ...] | None = None) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail
        self.cells = cells


# The row's number, from 1, and its cells or its JSON value; a RowRefused where that row alone cannot be read.
Row = tuple[int, Any | RowRefused]

TOO_LONG = RowRefused("row_too_large", f"longer than {ROW_BYTES} bytes")


@dataclass(frozen=True, slots=True)
class TableColumn:
    """A column; `type` is `string` wherever the format has no types."""

    name: str
    type: str = "string"


@dataclass(frozen=True, slots=True)
class Table:
    """A body whose header or schema was read, and whose rows are still to be read.

    `read` takes the positions of the columns that are wanted, and yields the cells of these alone, in their
    order; with `whole_rows` the cells of every column. JSON has no `columns`: each row names its own, and is
    yielded whole.
    """

    format: str
    columns: list[TableColumn] | None
    read: Callable[[Sequence[int]], Iterator[Row]]
    whole_rows: bool = False
    charset: str | None = None
    delimiter: str | None = None


def _list(columns: Sequence[TableColumn]) -> str:
    shown = ", ".join(f"{c.name[:_LISTED_CHARACTERS]} ({c.type})" for c in columns[:_LISTED_COLUMNS] if c.name)
    more = f" and {len(columns) - _LISTED_COLUMNS} more" if len(columns) > _LISTED_COLUMNS else ""
    return shown + more


class ColumnsRefused(Problem):
    """A column that is needed is missing, ambiguous, or of the wrong type."""

    status = 422
    code = "unknown_column"

    def __init__(
        self, parameter: str, detail: str, columns: Sequence[TableColumn], code: str = "unknown_column"
    ) -> None:
        errors = [{"parameter": parameter, "code": code, "detail": detail}]
        super().__init__(f"{detail} The columns are: {_list(columns)}.", code=code, extra={"errors": errors})


def check_columns(names: list[str], count: int | None = None) -> None:
    """Let pass a header of a bounded length. `count`: how many columns there are, if not one for each name.

    Raises:
        TooLarge: it has too many columns, or their names are too long.
    """
    count = len(names) if count is None else count
    if count > MOST_COLUMNS:
        raise TooLarge(
            f"The file has {count:,} columns, and may have {MOST_COLUMNS:,}. Leave some out.",
            code="too_many_columns",
        )
    if (characters := sum(map(len, names))) > _HEADER_CHARACTERS:
        raise TooLarge(
            f"The names of the columns have {characters:,} characters together, and may have "
            f"{_HEADER_CHARACTERS:,}. Make them shorter.",
            code="header_too_large",
        )


_EXACT = 2.0**53  # up to here a float holds every integer


def as_word(value: Any, name: str) -> str | None:
    """Return a cell as text: an integer in a column of floats, which is what a gap makes of it, without `.0`.

    None for not a number, which is how some programs write a gap.

    Raises:
        RowRefused: the cell has no exact text.
    """
    match value:
        case None | str():
            return value
        case bool():
            return str(value).lower()
        case int():
            return str(value)
        case float():
            return _float_as_word(value, name)
        case Decimal():
            return None if value.is_nan() else format(value, "f")
        case bytes():
            try:
                return value.decode()
            except UnicodeDecodeError as error:
                raise RowRefused("malformed_utf8", f"/{name}: not UTF-8 at byte {error.start}") from None
    raise RowRefused("wrong_type", f"/{name}: must be text or a number")


def _float_as_word(value: float, name: str) -> str | None:
    if math.isnan(value):
        return None
    if not value.is_integer():
        return repr(value)
    if abs(value) < _EXACT:
        return str(int(value))
    raise RowRefused("inexact_number", f"/{name}: a float of this size is not exact; store text or integers")


def as_number(value: Any, name: str) -> float | None:
    """Return a cell as a number; a comma may be its decimal point.

    Raises:
        RowRefused: it is none.
    """
    if isinstance(value, bytes):
        value = as_word(value, name)
    try:
        if isinstance(value, str):
            value = value.strip() or None
            if value is not None and value.count(",") == 1 and "." not in value:
                value = value.replace(",", ".")
        return None if value is None else float(value)
    except (TypeError, ValueError, OverflowError):
        raise RowRefused("float_parsing", f"/{name}: must be a number") from None


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
    if isinstance(value, dict):
        return {name: _plain(field) for name, field in value.items()}
    if isinstance(value, list | tuple):  # a map in Parquet is a list of pairs
        return [_plain(element) for element in value]
    return value if value is None or isinstance(value, str | bool) else _scalar(value)


def _scalar(value: Any) -> Any:
    match value:
        case float() | Decimal() if not math.isfinite(value):
            return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
        case float():
            return value
        case int() | Decimal():
            return orjson.Fragment(str(value))
        case date() | time():  # a datetime is a date
            return value.isoformat()
        case timedelta():
            return msgspec.to_builtins(value)
        case bytes():
            try:
                return value.decode()
            except UnicodeDecodeError:
                return {"base64": b64encode(value).decode()}
    raise TypeError(f"JSON has no {type(value).__name__}")


_INTEGERS = range(-(2**63), 2**63)


def as_metadata(value: Any, name: str, most_characters: int | None) -> bool | int | float | str | None:
    """Return a cell as a value of metadata; None where it is absent. Lists and the like become JSON.

    A value with more than `most_characters` is cut, with `…` at its end; with None, the caller checks that.

    Raises:
        RowRefused: the cell has no exact JSON.
    """
    if value is None or value == "" or isinstance(value, bool):
        return None if value == "" else value
    if isinstance(value, bytes):
        value = _scalar(value)
    if isinstance(value, float | Decimal):
        value = _exact_number(value)
    elif isinstance(value, int) and value not in _INTEGERS:
        value = str(value)
    elif not isinstance(value, str | int):
        value = _as_json(value, name)
    if most_characters is not None and isinstance(value, str) and len(value) > most_characters:
        return f"{value[: most_characters - 1]}…"
    found: bool | int | float | str | None = value
    return found


def _exact_number(value: float | Decimal) -> int | float | str | None:
    if not math.isfinite(value):
        return None if math.isnan(value) else str(_scalar(value))
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
    return words
