"""Column and label mapping: from the sender's names to a submission's fields."""

from collections.abc import Callable
from datetime import date, time
from decimal import Decimal
from typing import Any

from msgspec import structs

from core.web.openapi import BLANK
from core.web.problems import FieldError, InvalidFields
from ingestion_api.bulk.columns import FIELD_COLUMNS, Columns, RowRefused, UnknownColumn
from ingestion_api.texts.quick_submission import QuickSubmission

Mapping = Callable[[Any], Any]


_BLANKS = f"[{BLANK}]*"
_ENTRY = f"[^,]*[^,{BLANK}][^,]*:[^,:]*[^,:{BLANK}][^,:]*"
# For the documentation: what `parse_label_map` takes.
LABEL_MAP = f"^(?:{_ENTRY}|{_BLANKS})(?:,(?:{_ENTRY}|{_BLANKS}))*$"


def parse_label_map(parameter: str | None) -> dict[str, str]:
    """Read `Toxic:toxic,Not Toxic:non_toxic`.

    Raises:
        InvalidFields: an entry has no colon.
    """
    pairs = [entry.rpartition(":") for entry in (parameter or "").split(",") if entry.strip()]
    if any(not colon or not theirs.strip() or not ours.strip() for theirs, colon, ours in pairs):
        detail = "must look like THEIRS:OURS,THEIRS:OURS"
        raise InvalidFields([FieldError("malformed", detail, parameter="label_map")])
    return {theirs.strip(): ours.strip() for theirs, _, ours in pairs}


def map_object(defaults: dict[str, str], label_map: dict[str, str]) -> Mapping:
    """Return the mapping of a JSON object, whose fields have our names already."""

    def to_fields(row: Any) -> QuickSubmission | dict[str, Any]:
        if isinstance(row, QuickSubmission):
            return _fill_in(row, defaults, label_map)
        if not isinstance(row, dict):
            raise RowRefused("not_an_object", "must be a JSON object")
        fields = defaults | {name: value for name, value in row.items() if value is not None}
        if isinstance(label := fields.get("label"), str):
            fields["label"] = label_map.get(label, label)
        return fields

    return to_fields


def _fill_in(row: QuickSubmission, defaults: dict[str, str], label_map: dict[str, str]) -> QuickSubmission:
    changes = {name: value for name, value in defaults.items() if getattr(row, name) is None}
    if row.label is not None and row.label in label_map:
        changes["label"] = label_map[row.label]
    # A copy: the row is kept as it was sent if it is rejected.
    return structs.replace(row, **changes) if changes else row


def map_columns(
    columns: Columns, defaults: dict[str, str], label_map: dict[str, str]
) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """Return the mapping of a row of CSV or Parquet; an empty cell is an absent field, except for the text.

    The mapping raises UnknownColumn where the file lacks a column that is named.
    """

    def to_fields(row: dict[str, Any]) -> dict[str, Any]:
        _require(row, "text", columns.text)
        cells = {name: cell for name, cell in row.items() if cell is not None and cell != ""}
        fields: dict[str, Any] = defaults | {"text": cells.pop(columns.text, "")}
        if label := _take_label(row, cells, columns.label):
            fields["label"] = label_map.get(label, label)
        if columns.source in row:
            fields["source"] = str(cells.pop(columns.source, "")) or None
        fields |= {name: str(cells.pop(name)) for name in FIELD_COLUMNS if name in cells}
        if (score := cells.pop("score", None)) is not None:
            fields["score"] = _number(score)
        if columns.all_metadata:
            fields["metadata"] = {name: _plain(cell) for name, cell in cells.items()}
        return fields

    return to_fields


def _take_label(row: dict[str, Any], cells: dict[str, Any], column: str | None) -> str:
    if column is not None:
        _require(row, "label", column)
    return str(cells.pop(column or "label", "")).strip()


def _require(row: dict[str, Any], parameter: str, column: str) -> None:
    if column not in row:
        raise UnknownColumn(parameter, column, list(row))


def _number(cell: Any) -> float:
    try:
        return float(cell)
    except (TypeError, ValueError):
        raise RowRefused("float_parsing", "/score: must be a number") from None


def _plain(cell: Any) -> Any:
    """Return what JSON has no type for as what comes nearest."""
    if isinstance(cell, date | time):  # a datetime is a date
        return cell.isoformat()
    return float(cell) if isinstance(cell, Decimal) else cell
