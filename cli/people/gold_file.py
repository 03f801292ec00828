"""Reads gold texts from CSV and NDJSON files, each row checked by itself."""

import csv
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any
from uuid import UUID

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

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
    """Return the good rows by the number of the line on which they end, and what is wrong with the others.

    Raises:
        OSError, UnicodeDecodeError, csv.Error: the file cannot be read.
    """
    rows: dict[int, GoldRow] = {}
    rejects: Rejects = []
    for line, fields in _read_csv(path) if path.suffix == ".csv" else _read_ndjson(path):
        try:
            rows[line] = _check(fields, labels)
        except ValueError as error:
            rejects.append((line, _reasons(error)))
    return rows, rejects


def _read_csv(path: Path) -> Iterator[tuple[int, str | Mapping[Any, Any]]]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file, strict=True, restkey="(too many)")
        for fields in reader:
            yield reader.line_num, {name: value for name, value in fields.items() if value not in ("", None)}


def _read_ndjson(path: Path) -> Iterator[tuple[int, str | Mapping[Any, Any]]]:
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                yield number, line


def _check(fields: str | Mapping[Any, Any], labels: tuple[str, ...]) -> GoldRow:
    row = GoldRow.model_validate_json(fields) if isinstance(fields, str) else GoldRow.model_validate(fields)
    for name, label in (("label", row.label), ("claimed_label", row.claimed_label)):
        if label not in {None, *labels}:
            raise ValueError(f"{name}: must be one of {', '.join(labels)}")
    return row


def _reasons(error: ValueError) -> str:
    if not isinstance(error, ValidationError):
        return str(error)
    found = [(".".join(map(str, e["loc"])), e["msg"].removeprefix("Value error, ")) for e in error.errors()]
    return "; ".join(f"{where}: {what}" if where else what for where, what in found)
