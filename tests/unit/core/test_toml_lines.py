"""Lines of keys in a TOML document."""

import json
import tomllib
from dataclasses import dataclass, field
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from core.toml_errors import Path, find_lines, line_of

_KEYS = st.text(st.sampled_from("ab-_1. #[]{}=\",'é\n"), min_size=1, max_size=4)
_STRINGS = st.text(st.sampled_from("a \n#[]{}=,\"'\\"), max_size=12)
_SCALARS = st.one_of(st.integers(0, 9), st.booleans(), st.just(1.5), _STRINGS)
_INLINE = st.recursive(
    _SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_KEYS, inner, max_size=3),
    max_leaves=6,
)
_TABLE = st.dictionaries(_KEYS, _INLINE, max_size=4)
_DOCUMENT = st.fixed_dictionaries(
    {
        "first": _TABLE,
        "tables": st.dictionaries(_KEYS, _TABLE, max_size=3),
        "arrays": st.dictionaries(_KEYS, st.lists(_TABLE, min_size=1, max_size=3), max_size=2),
    }
)


@dataclass
class _Writer:
    """Writes a document in one of the many ways there are, and notes the line of each thing."""

    draw: Any
    written: str = ""
    lines: dict[Path, int] = field(default_factory=dict)

    def put(self, written: str) -> None:
        self.written += written

    def note(self, path: Path) -> None:
        self.lines.setdefault(path, self.written.count("\n") + 1)

    def pause(self) -> None:
        self.put(self.draw(st.sampled_from(["", "\n", "  ", "# [not] = 'a table'\n", "\n\n"])))

    def table(self, path: Path, values: dict[str, Any], before: Path = ()) -> None:
        for key, value in values.items():
            self.put(self.draw(st.sampled_from(["", "\n", "# a comment\n"])))
            for end in range(1, len(before) + 1):
                self.note((*path, *before[:end]))
            self.note((*path, *before, key))
            self.put(".".join(_key(str(part)) for part in (*before, key)) + " = ")
            self.value((*path, *before, key), value)
            self.put(self.draw(st.sampled_from(["\n", " # and = this\n", "\t\n"])))

    def value(self, path: Path, value: Any) -> None:
        match value:
            case list():
                self.put("[")
                for index, item in enumerate(value):
                    self.pause()
                    self.note((*path, index))
                    self.value((*path, index), item)
                    self.put(",")
                self.pause()
                self.put("]")
            case dict():
                self.put("{")
                for index, (key, item) in enumerate(value.items()):
                    self.put(", " if index else "")
                    self.note((*path, key))
                    self.put(f"{_key(key)} = ")
                    self.value((*path, key), item)
                self.put("}")
            case str():
                self.put(self.draw(st.sampled_from(_ways(value))))
            case _:
                self.put(json.dumps(value))


def _key(key: str) -> str:
    return key if key.isascii() and key.replace("-", "").replace("_", "").isalnum() else json.dumps(key)


def _ways(value: str) -> list[str]:
    ways = [json.dumps(value), '"""\n' + value.replace("\\", "\\\\").replace('"""', '""\\"') + '"""']
    if "'''" not in value and not value.endswith("'"):
        ways.append(f"'''\n{value}'''")
    if "'" not in value and "\n" not in value:
        ways.append(f"'{value}'")
    # The quotation marks at its end are the multi-line string's own trap.
    return [way for way in ways if tomllib.loads(f"k = {way}")["k"] == value]


@given(_DOCUMENT, st.data())
def test_each_key_has_its_line_however_it_is_written(document: dict[str, Any], data: st.DataObject) -> None:
    writer = _Writer(data.draw)
    writer.table((), document["first"])
    for name, table in document["tables"].items():
        writer.pause()
        writer.note(("t",))
        writer.note(("t", name))
        writer.put(f"[t . {_key(name)}] # ]\n")
        writer.table(("t", name), table, before=data.draw(st.sampled_from([(), ("dotted",), ("x", "y")])))
    for name, items in document["arrays"].items():
        for index, item in enumerate(items):
            writer.pause()
            for path in (("u",), ("u", name), ("u", name, index)):
                writer.note(path)
            writer.put(f"[[u.{_key(name)}]]\n")
            writer.table(("u", name, index), {f"_{key}": value for key, value in item.items()})
            writer.note(("u", name, index, "sub"))
            writer.put(f"[u.{_key(name)}.sub]\n")
    written = writer.written
    assert find_lines(written) == writer.lines
    assert find_lines(written).keys() == set(_paths((), tomllib.loads(written)))


def _paths(path: Path, value: Any) -> list[Path]:
    items: list[tuple[str | int, Any]] = []
    if isinstance(value, dict):
        items = list(value.items())
    elif isinstance(value, list):
        items = list(enumerate(value))
    return [found for key, item in items for found in ((*path, key), *_paths((*path, key), item))]


def test_quotation_marks_before_the_end_of_a_string_are_its_own() -> None:
    assert find_lines('a = """x"""""\nb = """"y""\n"""\nc = 1') == {("a",): 1, ("b",): 2, ("c",): 4}


def test_windows_ends_of_lines_count_once() -> None:
    assert find_lines("[a]\r\nb = [\r\n1,\r\n]\r\n") == {("a",): 1, ("a", "b"): 2, ("a", "b", 0): 3}


def test_what_is_not_there_has_the_line_of_what_is_around_it() -> None:
    lines = find_lines("\n[a]\nb = 1\n[[a.c]]\nd = 1")
    assert line_of(("a", "x", "y"), lines) == 2
    assert line_of(("a", "c", 0, "x"), lines) == 4
    assert line_of((), lines) == line_of(("x",), lines) == 1
