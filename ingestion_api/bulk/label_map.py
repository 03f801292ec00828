"""`label_map`: which of their labels is which of ours.

`Toxic:toxic,Not Toxic:non_toxic`; a backslash makes the next character an ordinary one (`Rude\\, mean:toxic`).
Numbers and truth values are written as in JSON (`1:toxic`, `true:toxic`). A comparison maps numbers
(`>=0.5:toxic,<0.5:non_toxic`); the first that holds decides, if no entry names the value itself.
"""

import operator
import re
from collections.abc import Callable
from typing import Any

from core.datasets import DEFAULT_DATASET, Datasets
from core.tables.rows import RowRefused, as_word
from core.web.openapi import BLANK
from core.web.problems import FieldError, InvalidFields

_ANY = r"(?:[^,\\]|\\[\s\S])"
_THEIRS = rf"{_ANY}*(?:[^,\\{BLANK}]|\\[\s\S]){_ANY}*"
_OURS = rf"(?:[^,:\\]|\\[\s\S])*(?:[^,:\\{BLANK}]|\\[\s\S])(?:[^,:\\]|\\[\s\S])*"
_ENTRY = f"{_THEIRS}:{_OURS}"
_BLANKS = f"[{BLANK}]*"
# For the documentation: what `parse_label_map` takes.
LABEL_MAP = f"^(?:{_ENTRY}|{_BLANKS})(?:,(?:{_ENTRY}|{_BLANKS}))*$"

_SPLIT_ENTRIES = re.compile(r"((?:[^,\\]|\\.)*)(?:,|$)", re.DOTALL)
_SPLIT_ENTRY = re.compile(r"((?:[^\\]|\\.)*):((?:[^:\\]|\\.)*)", re.DOTALL)
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)
_COMPARISON = re.compile(r"(>=|<=|>|<)\s*(-?[0-9]+(?:\.[0-9]*)?|-?\.[0-9]+)")
_COMPARE: dict[str, Callable[[float, float], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
}
_INTEGRAL = re.compile(r"(-?[0-9]+)\.0*")
_QUOTED_CHARACTERS = 50


def split_names(parameter: str) -> list[str]:
    """Read `a,b`; a backslash makes the next character an ordinary one."""
    return [_unescape(name) for name in _SPLIT_ENTRIES.findall(parameter) if name.strip()]


def parse_label_map(parameter: str | None) -> dict[str, str]:
    """Read `Toxic:toxic,Not Toxic:non_toxic`.

    Raises:
        InvalidFields: an entry has no colon, or nothing on one side of it; or nothing follows a backslash.
    """
    pairs = {}
    if _ESCAPED.sub("", parameter or "").endswith("\\"):
        raise _refused(
            "malformed", "must not end with a backslash, which makes the next character an ordinary one"
        )
    for entry in _SPLIT_ENTRIES.findall(parameter or ""):
        if not entry.strip():
            continue
        found = _SPLIT_ENTRY.fullmatch(entry)
        if found is None or not found[1].strip() or not found[2].strip():
            raise _refused("malformed", "must look like THEIRS:OURS,THEIRS:OURS")
        pairs[_unescape(found[1])] = _unescape(found[2])
    return pairs


def _unescape(words: str) -> str:
    return _ESCAPED.sub(r"\1", words.strip())


def _refused(code: str, detail: str) -> InvalidFields:
    return InvalidFields([FieldError(code, detail, parameter="label_map")])


def check_targets(pairs: dict[str, str], datasets: Datasets, dataset: str | None) -> None:
    """Check that a map leads to labels of the dataset, or, without one, of any dataset.

    Raises:
        InvalidFields: it does not.
    """
    names = [dataset] if dataset else sorted(datasets, key=lambda name: name != DEFAULT_DATASET)
    labels = dict.fromkeys(label for name in names for label in datasets[name].labels)
    if wrong := [ours for ours in pairs.values() if ours not in labels]:
        raise _refused("unknown_label", f'"{wrong[0][:100]}" is not one of {", ".join(labels)}')


class LabelMap:
    """Maps labels as they are in a body, and checks them."""

    def __init__(self, parameter: str | None, datasets: Datasets) -> None:
        self._pairs = parse_label_map(parameter)
        self._plain = {_canonical(theirs): ours for theirs, ours in self._pairs.items()}
        found = ((_COMPARISON.fullmatch(theirs), ours) for theirs, ours in self._pairs.items())
        self._comparisons = [(_COMPARE[m[1]], float(m[2]), ours) for m, ours in found if m]
        self._datasets = datasets
        # What a dataset redacts must not be quoted.
        self._quotes = not any(dataset.redact for dataset in datasets.values())

    @property
    def is_empty(self) -> bool:
        """Whether labels stay as they are."""
        return not self._pairs

    def find(self, value: Any) -> str | None:
        """Return our label for theirs, or theirs where the map says nothing about it; None for none.

        Raises:
            RowRefused: it is neither text nor a number.
        """
        if self._comparisons and isinstance(value, float) and value == value:
            return self._pairs.get(repr(value)) or self._compare(repr(value))
        word = (as_word(value, "label") or "").strip()
        if not word:
            return None
        return self._pairs.get(word) or self._plain.get(_canonical(word)) or self._compare(word)

    def _compare(self, word: str) -> str:
        if self._comparisons:
            try:
                number = float(word.replace(",", "."))
            except ValueError:
                return word
            return next((ours for compare, limit, ours in self._comparisons if compare(number, limit)), word)
        return word

    def check(self, label: str, dataset: str | None) -> None:
        """Check a mapped label. An unknown dataset is left to the check of the fields.

        Raises:
            RowRefused: it is none of the dataset's labels.
        """
        definition = self._datasets.get(DEFAULT_DATASET if dataset is None else dataset)
        if definition is None or label in definition.labels:
            return
        known = ", ".join(definition.labels)
        quoted, theirs, ours = "the label", "THEIRS", "OURS"
        if self._quotes and len(label) <= _QUOTED_CHARACTERS:
            quoted, theirs, ours = f'label "{label}"', escape(label), definition.labels[0]
        raise RowRefused("unknown_label", f"{quoted} is not one of {known}; map it with label_map={theirs}:{ours}")


def escape(label: str) -> str:
    """Return a label as a label map writes it."""
    return re.sub(r"([\\,:])", r"\\\1", label)


def _canonical(word: str) -> str:
    """Return `1` for `1.0`, and `true` for `True`: programs differ in how they write these."""
    if found := _INTEGRAL.fullmatch(word):
        return found[1]
    return word.lower() if word.lower() in {"true", "false"} else word
