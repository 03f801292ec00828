"""Proposes a role for each column, from the columns' names and first values."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from core.datasets import DEFAULT_DATASET, Datasets
from core.tables.rows import RowRefused, TableColumn, as_number, as_word
from ingestion_api.bulk.label_map import escape
from ingestion_api.bulk.mapping import FIELD_COLUMNS, LIKELY_NAMES, is_unnamed, plain_name
from ingestion_api.bulk.schemas import BulkParameters

_SAMPLES = 5
_SAMPLE_CHARACTERS = 200
_MOST_VALUES = 50  # a column with more of them holds no labels

_POSITIVE = {"1", "true", "yes", "y", "t"}
_NEGATIVE = {"0", "false", "no", "n", "f"}
_NEGATION = re.compile("^(?:non|not|no)_")
_INTEGER = re.compile(r"[+-]?\d{1,18}")
_BOOLEANS = {"true", "false"}


@dataclass(slots=True)
class Profile:
    """Statistics of a column's first rows."""

    column: TableColumn
    samples: list[str] = field(default_factory=list)
    values: Counter[str] = field(default_factory=Counter)
    empty: int = 0
    rows: int = 0
    characters: int = 0
    kinds: set[str] = field(default_factory=set)
    least: float = 0.0
    most: float = 0.0

    def add(self, cell: Any) -> None:
        """Count a cell."""
        self.rows += 1
        try:
            word = as_word(cell, self.column.name)
        except RowRefused:
            word = str(cell)
        if word is None or not (word := word.strip()):
            self.empty += 1
            return
        if len(self.values) <= _MOST_VALUES or word in self.values:
            self.values[word] += 1
        if len(self.samples) < _SAMPLES and (short := word[:_SAMPLE_CHARACTERS]) not in self.samples:
            self.samples.append(short.encode(errors="replace").decode())
        self.characters += len(word)
        self.kinds.add(self._kind(word))

    def _kind(self, word: str) -> str:
        if word.lower() in _BOOLEANS:
            return "boolean"
        with suppress(RowRefused):
            number = as_number(word, self.column.name) or 0.0
            self.least, self.most = min(self.least, number), max(self.most, number)
            return "integer" if _INTEGER.fullmatch(word) else "number"
        return "string"

    @property
    def type(self) -> str:
        """Return the column's type; where the format has none, that of the values that are seen."""
        if self.column.type != "string" or not self.kinds:
            return self.column.type
        if self.kinds <= {"integer", "number"}:
            return "number" if "number" in self.kinds else "integer"
        return next(iter(self.kinds)) if len(self.kinds) == 1 else "string"

    @property
    def is_probability(self) -> bool:
        """Whether the values are numbers from 0 to 1."""
        return self.type in {"number", "decimal"} and self.least >= 0 and self.most <= 1

    @property
    def is_category(self) -> bool:
        """Whether the values are few."""
        return self.type in {"string", "integer", "boolean"} and 0 < len(self.values) <= _MOST_VALUES

    @property
    def mean_characters(self) -> float:
        """Return the mean length of the values that are there."""
        return self.characters / max(1, self.rows - self.empty)


def profile_rows(columns: Sequence[TableColumn] | None, rows: Iterable[Any]) -> list[Profile]:
    """Look at rows: of cells, or of JSON, whose columns are the names that are seen."""
    if columns is not None:
        profiles = [Profile(column) for column in columns]
        for cells in rows:
            for profile, cell in zip(profiles, cells, strict=True):
                profile.add(cell)
        return profiles
    by_name: dict[str, Profile] = {}
    for row in rows:
        if isinstance(row, dict):
            for name, cell in row.items():
                by_name.setdefault(name, Profile(TableColumn(name, _json_type(cell)))).add(cell)
    return list(by_name.values())


def _json_type(cell: Any) -> str:
    return "struct" if isinstance(cell, dict) else "list" if isinstance(cell, list) else "string"


def propose(
    profiles: Sequence[Profile], given: BulkParameters, datasets: Datasets, *, is_json: bool
) -> BulkParameters:
    """Return the parameters with proposals for those that are not given."""
    named = {profile.column.name: profile for profile in profiles if not is_unnamed(profile.column.name)}
    found = given.model_copy()
    taken: set[str] = set()
    labels = datasets[given.dataset or DEFAULT_DATASET].labels
    for role in LIKELY_NAMES:
        name = getattr(given, role) or next(iter(_find(role, named, taken, labels)), None)
        if name is not None:
            taken.add(name)
            if name != role:
                setattr(found, role, name)
    label = named.get(found.label or "label")
    if label is not None and given.label_map is None:
        found.label_map = propose_label_map(label, labels) or None
    others = named.keys() - taken - set(FIELD_COLUMNS) - {"metadata"}
    if is_json and others and given.metadata is None:
        found.metadata = "none"  # else other fields are errors
    return found


def _find(role: str, named: dict[str, Profile], taken: set[str], labels: Sequence[str]) -> Iterator[str]:
    """Yield the columns that may be meant, the likeliest first."""
    if role in named:
        yield role
    # What the label is made of may be the score as well.
    plain = {plain_name(name): name for name in reversed(named) if name not in taken or role == "score"}
    for likely in LIKELY_NAMES[role].split():
        if likely in plain and _fits(role, named[plain[likely]]):
            yield plain[likely]
    if role == "label":
        for name, profile in named.items():
            # Each value is the name of a label, however it is written.
            if name not in taken and profile.is_category and all(_same_label(v, labels) for v in profile.values):
                yield name
    if role == "text":
        longest = max(named.values(), key=lambda p: p.mean_characters if p.type == "string" else 0.0, default=None)
        if longest is not None and longest.type == "string":
            yield longest.column.name


def _same_label(value: str, labels: Sequence[str]) -> str | None:
    plain = plain_name(value)
    same = [label for label in labels if plain == label or _stem(plain) == _stem(label)]
    return same[0] if len(same) == 1 else None


def _fits(role: str, profile: Profile) -> bool:
    match role:
        case "text":
            return profile.type in {"string", "binary"}
        case "label":
            return profile.is_category or profile.is_probability
        case "score":
            return profile.is_probability
    return profile.type not in {"list", "struct", "map"} and not profile.empty


def propose_label_map(profile: Profile, labels: Sequence[str]) -> str:
    """Return a label map for the values that are seen, as far as they say which label they mean."""
    positive = _find_positive(labels)
    if profile.is_probability and positive:
        return f">=0.5:{positive},<0.5:{next(label for label in labels if label != positive)}"
    pairs = {}
    is_binary = {value.lower() for value in profile.values} <= _POSITIVE | _NEGATIVE
    for value in sorted(profile.values):
        if value in labels:
            continue
        if same := _same_label(value, labels):
            pairs[value] = same
        elif is_binary and positive:
            is_positive = value.lower() in _POSITIVE
            pairs[value] = next(label for label in labels if (label == positive) == is_positive)
    return ",".join(f"{escape(theirs)}:{ours}" for theirs, ours in pairs.items())


def _stem(label: str) -> tuple[bool, str]:
    return bool(_NEGATION.match(label)), _NEGATION.sub("", label)


def _find_positive(labels: Sequence[str]) -> str | None:
    """Return `toxic` of `toxic` and `non_toxic`: which of two labels 1 means."""
    if len(labels) != 2:
        return None
    found = [label for label in labels if not _NEGATION.match(label)]
    return found[0] if len(found) == 1 else None
