"""From rows as they are in a body to the fields of submissions.

What each column is for is decided once, from the table's columns and the request's parameters, before the first
row.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from msgspec import structs

from core.datasets import DEFAULT_DATASET, Datasets
from core.tables.rows import ColumnsRefused, Row, RowRefused, Table, TableColumn, as_metadata, as_number, as_word
from ingestion_api.bulk.label_map import LabelMap
from ingestion_api.bulk.schemas import BulkParameters
from ingestion_api.texts.schemas import METADATA_CHARACTERS
from ingestion_api.texts.submissions import QuickSubmission

# Columns that are fields when they have a field's name.
FIELD_COLUMNS = ("label", "score", "source", "external_id", "dataset")
# The most likely name first. Names are compared without case, spaces and hyphens.
LIKELY_NAMES = {
    "text": "text comment_text comment tweet tweet_text full_text content body message sentence post review",
    "label": "label labels class is_toxic toxic toxicity target category annotation gold_label is_hate hate y",
    "score": "score toxicity target probability prob confidence",
    "external_id": "external_id id _id comment_id tweet_id post_id message_id uid uuid",
}

_NESTED = {"list", "struct", "map"}
_TYPES = {
    "text": {"string", "binary"},
    "score": {"string", "binary", "integer", "number", "decimal", "boolean", "null"},
}
_WORDS = {"source", "external_id", "dataset"}
_MOST_METADATA = 100
_NAME_CHARACTERS = 200
# What pandas calls an index, and a column that has no name.
_NO_NAME = re.compile(r"|__index_level_\d+__|Unnamed: \d+")

# A row of our own export: its other fields are facts about the text, not parts of a submission.
_EXPORTED = {"id", "text", "status", "votes", "agreement", "annotations", "claimed_label", "labelled_at"}


@dataclass(frozen=True, slots=True)
class Rows:
    """A table's rows, and how to map one.

    `to_fields` returns the fields of a submission, or raises RowRefused. `as_sent` returns the part of a rejected
    row that is kept.
    """

    rows: Iterator[Row]
    to_fields: Callable[[Any], Any]
    as_sent: Callable[[Any], Any]


def map_table(table: Table, parameters: BulkParameters, datasets: Datasets) -> Rows:
    """Decide the role of each column.

    Raises:
        ColumnsRefused: a column is not there, is there twice, or has a type that does not fit.
    """
    if table.columns is None:
        return Rows(table.read(()), ObjectMapping(parameters, datasets), lambda row: row)
    roles, metadata = assign_columns(table.columns, parameters)
    read = list(dict.fromkeys([*roles.values(), *metadata]))  # a column may be label and score
    cells = range(len(table.columns)) if table.whole_rows else read
    places = {position: place for place, position in enumerate(cells)}
    names = [table.columns[position].name for position in cells]
    defaults = parameters.defaults
    if "source" in roles and table.columns[roles["source"]].name == (parameters.source or "").strip():
        del defaults["source"]  # it names the column
    mapping = RowMapping(
        {role: places[position] for role, position in roles.items()},
        {table.columns[position].name: places[position] for position in metadata},
        defaults,
        LabelMap(parameters.label_map, datasets),
        cut=parameters.all_metadata,
    )
    return Rows(table.read(read), mapping, lambda row: dict(zip(names, row, strict=True)))


def plain_name(name: str) -> str:
    """Return a name as `LIKELY_NAMES` has it."""
    return re.sub(r"[\s\-.]+", "_", name.strip().lower())


def assign_columns(columns: Sequence[TableColumn], parameters: BulkParameters) -> tuple[dict[str, int], list[int]]:
    """Return the position of the column of each field, and those of the columns that become metadata.

    Raises:
        ColumnsRefused: see `map_table`.
    """
    names = [column.name for column in columns]
    given = {"text": parameters.text or "text", "source": parameters.source}
    given |= {role: getattr(parameters, role) for role in ("label", "score", "external_id")}
    named = {role: name.strip() for role, name in given.items() if name}
    if named.get("source") not in names:
        named.pop("source", None)
    taken = set(named.values())
    named |= {role: role for role in FIELD_COLUMNS if role not in named and role in names and role not in taken}
    roles = {role: _find_column(columns, role, name) for role, name in named.items()}
    return roles, _find_metadata(columns, parameters, set(roles.values()))


def _find_column(columns: Sequence[TableColumn], role: str, name: str) -> int:
    found = [position for position, column in enumerate(columns) if column.name == name]
    if not found:
        likely = (c.name for c in columns if plain_name(c.name) in LIKELY_NAMES.get(role, "").split())
        hint = f" Name the column of the {role}: {role}={next(likely, 'COLUMN')}."
        raise ColumnsRefused(role, f'There is no column "{name}".{hint}', columns)
    if len(found) > 1:
        detail = f'There are {len(found)} columns "{name}". Rename all but one.'
        raise ColumnsRefused(role, detail, columns, "duplicate_column")
    kind = columns[found[0]].type
    if kind not in _TYPES.get(role, {kind}) or (role != "metadata" and kind in _NESTED):
        detail = (
            f'The column "{name}" is of type {kind}, which cannot be the {role}. Choose another: {role}=COLUMN.'
        )
        raise ColumnsRefused(role, detail, columns, "wrong_column_type")
    return found[0]


def _find_metadata(columns: Sequence[TableColumn], parameters: BulkParameters, taken: set[int]) -> list[int]:
    """Return the positions of the columns that become metadata: no index, and none without a name."""
    names = parameters.metadata_names
    if parameters.all_metadata:
        others = (c for position, c in enumerate(columns) if position not in taken)
        names = [column.name for column in others if not is_unnamed(column.name)]
    found = [_find_column(columns, "metadata", name) for name in names]
    if broken := [name for name in names if "\ufffd" in name]:
        detail = f'The name of the column "{broken[0]}" is in another charset. Name it: charset=windows-1252.'
        raise ColumnsRefused("metadata", detail, columns, "malformed_charset")
    too_long = [name for name in names if len(name) > _NAME_CHARACTERS]
    if len(found) > _MOST_METADATA or too_long:
        detail = f"Metadata may have {_MOST_METADATA} columns, with names of up to {_NAME_CHARACTERS} characters. "
        raise ColumnsRefused("metadata", f"{detail}Choose some: metadata=a,b.", columns, "too_much_metadata")
    return found


def is_unnamed(name: str) -> bool:
    """Whether a column is unnamed, or an index that pandas wrote."""
    return not name.strip() or _NO_NAME.fullmatch(name) is not None


class RowMapping:
    """Maps the cells of a row. An empty cell is an absent field, except for the text."""

    def __init__(
        self,
        roles: dict[str, int],
        metadata: dict[str, int],
        defaults: dict[str, str],
        labels: LabelMap,
        *,
        cut: bool,
    ) -> None:
        self._text = roles["text"]
        self._label = roles.get("label")
        self._score = roles.get("score")
        self._words = [(role, place) for role, place in roles.items() if role in _WORDS]
        self._metadata = list(metadata.items())
        self._most = METADATA_CHARACTERS if cut else None
        self._defaults = defaults
        self._labels = labels

    def __call__(self, cells: Sequence[Any]) -> dict[str, Any]:
        """Return the fields of a row.

        Raises:
            RowRefused: a cell has no exact value for its field, or the label is unknown.
        """
        text = cells[self._text]
        fields: dict[str, Any] = {**self._defaults}
        fields["text"] = text if isinstance(text, str) else as_word(text, "text") or ""
        for role, place in self._words:
            cell = cells[place]
            if word := cell if isinstance(cell, str) else as_word(cell, role):
                fields[role] = word
        if self._label is not None and (label := self._labels.find(cells[self._label])):
            self._labels.check(label, fields.get("dataset"))
            fields["label"] = label
        if self._score is not None and (score := as_number(cells[self._score], "score")) is not None:
            fields["score"] = score
        if self._metadata:
            values = ((name, as_metadata(cells[place], name, self._most)) for name, place in self._metadata)
            fields["metadata"] = {name: value for name, value in values if value is not None}
        return fields


class ObjectMapping:
    """Maps JSON values, whose fields have our names unless the parameters say otherwise."""

    def __init__(self, parameters: BulkParameters, datasets: Datasets) -> None:
        self._parameters = parameters
        self._chooses = parameters.chooses
        self._metadata_names = parameters.metadata_names
        self._defaults = parameters.defaults
        self._labels = LabelMap(parameters.label_map, datasets)
        roles = ("text", "label", "score", "external_id")
        self._names = {role: getattr(parameters, role) or role for role in roles}
        # Most rows need nothing: to find that out row by row would take a sixth of the time of reading NDJSON.
        self._is_plain = not self._defaults and self._labels.is_empty
        self._plain_labels = datasets[DEFAULT_DATASET].labels if DEFAULT_DATASET in datasets else ()

    def __call__(self, row: Any) -> QuickSubmission | dict[str, Any]:
        """Return the fields of a row.

        Raises:
            RowRefused: it is no object, or see `RowMapping`.
        """
        if isinstance(row, QuickSubmission):
            return self._fill_in(row)
        if not isinstance(row, dict):
            hint = "; send an array as application/json" if isinstance(row, list) else ""
            raise RowRefused("not_an_object", f"must be a JSON object{hint}")
        fields = self._choose(row) if self._chooses or row.keys() >= _EXPORTED else dict(row)
        for role in _WORDS & fields.keys():
            fields[role] = as_word(fields[role], role) or None
        if isinstance(metadata := fields.get("metadata"), dict):
            fields["metadata"] = {name: value for name, value in metadata.items() if value is not None}
        label = self._labels.find(fields.pop("label", None))
        fields = self._defaults | {name: value for name, value in fields.items() if value is not None}
        if label is not None:
            self._labels.check(label, fields.get("dataset"))
            fields["label"] = label
        return fields

    def _fill_in(self, row: QuickSubmission) -> QuickSubmission:
        if self._is_plain and (row.label is None or (row.dataset is None and row.label in self._plain_labels)):
            return row
        changes: dict[str, Any] = {
            name: value for name, value in self._defaults.items() if getattr(row, name) is None
        }
        if row.label is not None:
            changes["label"] = label = self._labels.find(row.label)
            if label is not None:
                self._labels.check(label, changes.get("dataset", row.dataset))
        # A copy: the row is kept as it was sent if it is rejected.
        return structs.replace(row, **changes) if changes else row

    def _choose(self, row: dict[str, Any]) -> dict[str, Any]:
        """Return the fields that are wanted of a row with others."""
        fields: dict[str, Any] = {role: row.get(name) for role, name in self._names.items()}
        if isinstance(fields["score"], str):
            fields["score"] = as_number(fields["score"], "score")
        fields["dataset"] = row.get("dataset")
        source = self._parameters.source
        fields["source"] = row.get(source if source is not None and source in row else "source")
        fields["metadata"] = self._find_metadata(row)
        return fields

    def _find_metadata(self, row: dict[str, Any]) -> Any:
        own = row.get("metadata")
        if self._parameters.metadata is None:
            return own
        names: Sequence[str] = self._metadata_names
        if self._parameters.all_metadata:
            taken = {*self._names.values(), self._parameters.source, "source", "dataset"}
            names = [name for name in row if name not in taken]
        if isinstance(own, dict):
            names = [name for name in names if name != "metadata"]
        else:
            own = {}  # a field like any other
        most = METADATA_CHARACTERS if self._parameters.all_metadata else None
        found = {name: as_metadata(row.get(name), name, most) for name in names}
        if twice := [name for name in own if found.get(name) is not None]:
            raise RowRefused("duplicate_metadata", f"/metadata/{twice[0]}: is there twice; choose: metadata=a,b")
        return own | found
