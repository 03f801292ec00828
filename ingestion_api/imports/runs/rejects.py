"""The rejected rows of an import: which are kept, as JSON, to be corrected and sent again.

A row is kept as it was read, before columns are mapped (`bulk.exact_json`). What has no JSON is not kept: a text
could hide in its string form.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from core.tables.rows import RowRefused
from ingestion_api.bulk.values import to_exact_json

_FIELDS_BYTES = 64 * 1024


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


StoredReject = tuple[int, str, str, str | None]  # row, code, detail, fields as JSON


@dataclass(slots=True)
class KeptRejects:
    """The rejected rows that are kept so far, and their limits. The first rows are kept, without gaps."""

    rows: int
    bytes: int
    most_rows: int
    most_bytes: int

    def go_on(self, rows: int, size: int, rejected: int) -> None:
        """Go on from what an earlier run has kept of the rows that it rejected."""
        self.rows, self.bytes = rows, size
        if rows < rejected:
            self.most_rows = rows

    def keep(self, rejects: Iterable[StoredReject]) -> Iterator[StoredReject]:
        """Yield those that are still kept, and count them."""
        for reject in rejects:
            _, code, detail, fields = reject
            size = len(code) + len(detail) + len(fields or "")
            if self.rows >= self.most_rows or self.bytes + size > self.most_bytes:
                self.most_rows = self.rows  # a shorter row later would leave a gap
                return
            self.rows += 1
            self.bytes += size
            yield reject


def to_json(fields: Any) -> str | None:
    """Return the row as JSON; None if it could not be read, is over 64 KiB, or holds what JSON cannot say."""
    if isinstance(fields, RowRefused):
        return None
    try:
        encoded = to_exact_json(fields)
    except (TypeError, ValueError, RecursionError):  # lone surrogates, integers of many digits, deep nesting
        return None
    return encoded if len(encoded.encode()) <= _FIELDS_BYTES else None
