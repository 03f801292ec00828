"""Cells of any format as text and as numbers: exact, or refused."""

import math
from decimal import Decimal
from typing import Any

from core.tables.rows import RowRefused

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
