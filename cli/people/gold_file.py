"""Reads gold texts from a table, each row checked by itself."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any
from uuid import UUID

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from core.tables.cells import as_word
from core.tables.local_files import open_file, read_columns
from core.tables.rows import RowRefused
from core.text_identity import TEXT_BYTES, normalise, text_id


def _storable(value: str) -> str:
    if "\0" in value or (not value.isascii() and any("\ud800" <= c <= "\udfff" for c in value)):
        raise ValueError("has characters that cannot be stored")
    return value


def _text(value: str) -> str:
    text = normalise(_storable(value))
    if not text:
        raise ValueError("is empty")
    if len(text.encode()) > TEXT_BYTES:
        raise ValueError(f"is longer than {TEXT_BYTES} bytes")
    return text


_Words = Annotated[str, Field(min_length=1, max_length=1000), AfterValidator(_storable)]


class GoldRow(BaseModel):
    """A text, or the id of one that is stored, with its known answer."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    label: str
    text: Annotated[str, AfterValidator(_text)] | None = None
    id: UUID | None = None
    claimed_label: str | None = None
    score: float | None = Field(None, ge=0, le=1)
    source: _Words | None = None
    external_id: _Words | None = None

    @model_validator(mode="after")
    def _names_one_text(self) -> "GoldRow":
        if (self.text is None) == (self.id is None):
            raise ValueError("needs either text or id")
        return self

    def text_id(self, dataset: str) -> UUID:
        """Return the id of the text in a dataset."""
        return self.id or text_id(dataset, self.text or "")


Rejects = list[tuple[int, str]]


def read_gold(path: Path, labels: tuple[str, ...]) -> tuple[dict[int, GoldRow], Rejects]:
    """Return the good rows by their number, and what is wrong with the others.

    Raises:
        OSError, Problem: the file cannot be read, or has other columns.
    """
    rows: dict[int, GoldRow] = {}
    rejects: Rejects = []
    for number, fields in _read(path):
        try:
            rows[number] = _check(fields, labels)
        except (ValueError, RowRefused) as error:
            rejects.append((number, _reasons(error)))
    return rows, rejects


def _read(path: Path) -> Iterator[tuple[int, Any]]:
    with open_file(path) as table:
        yield from read_columns(table, GoldRow.model_fields, required=["label"])


def _check(row: Any, labels: tuple[str, ...]) -> GoldRow:
    if isinstance(row, RowRefused):
        raise row
    if not isinstance(row, Mapping):
        raise RowRefused("not_an_object", "must be an object")
    fields = {name: cell if name == "score" else as_word(cell, name) for name, cell in row.items()}
    gold = GoldRow.model_validate({name: cell for name, cell in fields.items() if cell not in ("", None)})
    for name, label in (("label", gold.label), ("claimed_label", gold.claimed_label)):
        if label not in {None, *labels}:
            raise ValueError(f'{name} "{label}" is not one of {", ".join(labels)}')
    return gold


def _reasons(error: Exception) -> str:
    if not isinstance(error, ValidationError):
        return str(error)
    found = [(".".join(map(str, e["loc"])), e["msg"].removeprefix("Value error, ")) for e in error.errors()]
    return "; ".join(f"{where}: {what}" if where else what for where, what in found)
