"""From a bulk body to batches of checked rows, in constant memory."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from msgspec import structs
from pydantic_core import from_json

from core.datasets import Datasets
from core.tables.csv_table import DELIMITERS
from core.tables.json_table import read_value
from core.tables.opening import MEDIA_TYPES, open_table
from core.tables.rows import RowRefused, Table, to_exact_json
from core.tables.text_lines import require_charset
from core.web.problems import DatasetNotAllowed, InvalidFields, Problem, TooLarge
from ingestion_api.bulk.mapping import Rows, map_table
from ingestion_api.bulk.pipes import report_step
from ingestion_api.bulk.schemas import BulkParameters
from ingestion_api.texts.submissions import NewText, QuickSubmission, check_fields, read_quickly

_BATCH_CHARACTERS = 16_000_000  # two batches are held at a time
# The approximate memory of an element of a list or an object, in addition to its characters.
_ELEMENT_CHARACTERS = 50
# A row of 1 MiB may have a hundred thousand wrong fields with long names.
_TOLD_ERRORS = 10
_DETAIL_CHARACTERS = 2000
_MOST_REASONS = 100
_SHOWN_REASONS = 20
_GROUP_ROWS = 5
_FIELDS_BYTES = 64 * 1024  # of a rejected row that is kept
_REMEDIES = {
    "extra_forbidden": "unknown field; metadata=all keeps other fields, metadata=none leaves them out",
    "missing": "is missing; name the field that holds it with text=FIELD",
}


@dataclass(frozen=True, slots=True)
class BulkUpload:
    """How to read and store a body, in values that travel between processes."""

    media_type: str
    encoding: str
    parameters: BulkParameters
    datasets: Datasets
    allowed: frozenset[str] | None = None  # the datasets that rows may name; None: all

    @property
    def abort_on_error(self) -> bool:
        """Whether a bad row refuses the whole body."""
        return self.parameters.on_error == "abort"

    def open_table(self, chunks: Iterable[bytes]) -> Table:
        """Read the header or schema of a body; raises as `opening.open_table` does."""
        given = self.parameters
        return open_table(
            chunks,
            MEDIA_TYPES[self.media_type],
            charset=require_charset(given.charset) if given.charset else None,
            delimiter=DELIMITERS[given.delimiter] if given.delimiter else None,
            parse=read_value if given.chooses else _read_submission,
        )

    def open_rows(self, chunks: Iterable[bytes]) -> Rows:
        """Read the header or schema of a body, and decide the role of each column; raises also as `map_table`."""
        return map_table(self.open_table(chunks), self.parameters, self.datasets)


def _read_submission(value: bytes) -> Any:
    return read_quickly(value) or from_json(value, allow_inf_nan=False)


@dataclass(frozen=True, slots=True)
class Reject:
    """Why one row was rejected; `row` counts from 1, blank lines included."""

    row: int
    code: str
    detail: str


@dataclass(slots=True)
class Batch:
    """Rows that follow on each other: those that can be stored, and why the others cannot."""

    rows: list[NewText] = field(default_factory=list)
    rejects: list[Reject] = field(default_factory=list)
    rejected_fields: list[Any] = field(default_factory=list)  # of each reject: the row as it was read
    last_row: int = 0
    characters: int = 0

    @property
    def received(self) -> int:
        """How many rows of the body it holds."""
        return len(self.rows) + len(self.rejects)

    def reject(self, fields: object, reject: Reject) -> None:
        """Note a row that cannot be stored."""
        self.rejects.append(reject)
        self.rejected_fields.append(fields)
        self.characters += _count_characters(fields)


def read_batches(
    upload: BulkUpload, chunks: Iterable[bytes], chunk_rows: int, after_row: int = 0
) -> Iterator[Batch]:
    """Yield the rows behind `after_row` in batches of `chunk_rows`, or fewer where rows are long.

    Where reading fails, first those before are yielded.

    Raises:
        Problem: the body cannot be read on.
    """
    table = upload.open_rows(chunks)
    batch = Batch()
    try:
        for number, row in table.rows:
            if number % chunk_rows == 0:
                report_step()
            if number <= after_row:
                continue
            check_row(batch, number, row, table, upload)
            if batch.received == chunk_rows or batch.characters > _BATCH_CHARACTERS:
                yield batch
                batch = Batch()
    except Problem:
        if batch.received:
            yield batch
        raise
    if batch.received:
        yield batch


def check_row(batch: Batch, number: int, row: Any, table: Rows, upload: BulkUpload) -> None:
    """Add a row of the table to a batch, or why it is rejected."""
    batch.last_row = number
    try:
        if isinstance(row, RowRefused):
            raise row
        checked = check_fields(table.to_fields(row), upload.datasets)
        if upload.allowed is not None and checked.dataset not in upload.allowed:
            raise DatasetNotAllowed(checked.dataset, upload.allowed)
        batch.rows.append(checked)
        batch.characters += len(checked.text) + len(checked.metadata)
    except (RowRefused, InvalidFields, TooLarge, DatasetNotAllowed) as refused:
        sent = row if isinstance(row, RowRefused) else table.as_sent(row)
        batch.reject(sent, Reject(number, *_reason(refused)))


def _reason(refused: RowRefused | Problem) -> tuple[str, str]:
    """Return the code of a refused row, and a detail: of wrong fields the code of the first, and a few details."""
    if not isinstance(refused, InvalidFields):
        return refused.code, refused.detail
    errors = refused.errors
    details = "; ".join(
        f"{error.pointer}: {_REMEDIES.get(error.code, error.detail)}" for error in errors[:_TOLD_ERRORS]
    )
    if refused.count > _TOLD_ERRORS:
        details = f"{details[:_DETAIL_CHARACTERS]}; and {refused.count - _TOLD_ERRORS} more"
    return errors[0].code, details[:_DETAIL_CHARACTERS]


def to_json(fields: Any) -> str | None:
    """Return a rejected row, as it was read before columns are mapped, as JSON.

    None if it could not be read, is over 64 KiB, or has a value without exact JSON: a text could hide in the
    string form of such a value.
    """
    if isinstance(fields, RowRefused):
        return None
    if isinstance(fields, QuickSubmission):
        fields = {name: value for name, value in structs.asdict(fields).items() if value is not None}
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


def _count_characters(fields: object) -> int:
    """Return how much memory a rejected row takes, in characters, about."""
    match fields:
        case str() | bytes():
            return len(fields)
        case dict():
            return sum(_ELEMENT_CHARACTERS + len(name) + _count_characters(fields[name]) for name in fields)
        case list():
            return sum(_ELEMENT_CHARACTERS + _count_characters(value) for value in fields)
        case _:
            return _ELEMENT_CHARACTERS


@dataclass(slots=True)
class Reasons:
    """Why rows were rejected: each reason once, with its number of rows and the first of them."""

    _groups: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)

    def add(self, rejects: Iterable[Reject]) -> None:
        """Count rejected rows; of very many reasons the first are kept."""
        for reject in rejects:
            group = self._groups.get((reject.code, reject.detail))
            if group is None:
                if len(self._groups) == _MOST_REASONS:
                    continue
                group = {"code": reject.code, "detail": reject.detail, "count": 0, "rows": []}
                self._groups[reject.code, reject.detail] = group
            group["count"] += 1
            if len(group["rows"]) < _GROUP_ROWS:
                group["rows"].append(reject.row)

    def as_list(self) -> list[dict[str, Any]]:
        """Return the commonest, as they travel on the wire."""
        return sorted(self._groups.values(), key=lambda group: -int(group["count"]))[:_SHOWN_REASONS]
