"""A rejected row as JSON: to be corrected and sent again, and for forgetting to find texts in it.

The row is kept as it was read, before columns are mapped (`bulk.exact_json`). What has no JSON is not kept: a text
could hide in its string form.
"""

from typing import Any

from core.tables.rows import RowRefused
from ingestion_api.bulk.exact_json import to_exact_json

_FIELDS_BYTES = 64 * 1024


def to_json(fields: Any) -> str | None:
    """Return the row as JSON; None if it could not be read, is over 64 KiB, or holds what JSON cannot say."""
    if isinstance(fields, RowRefused):
        return None
    try:
        encoded = to_exact_json(fields)
    except (TypeError, ValueError, RecursionError):  # lone surrogates, integers of many digits, deep nesting
        return None
    return encoded if len(encoded.encode()) <= _FIELDS_BYTES else None
