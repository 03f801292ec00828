"""Finds the line of each key of a TOML document: `tomllib` gives none."""

import re
import tomllib
from collections.abc import Callable, Iterator, Sequence
from difflib import get_close_matches
from typing import Any, NamedTuple

from pydantic import ValidationError

Path = tuple[str | int, ...]

_TOKEN = re.compile(
    r'"""(?:\\.|[^\\])*?"{3,5}'  # up to two quotation marks may stand before the closing ones
    r"|'''.*?'{3,5}"
    r'|"(?:\\.|[^"\\])*"'
    r"|'[^']*'"
    r"|#[^\n]*"
    r"|[A-Za-z0-9_-]+"
    r"|.",
    re.DOTALL,
)


class _Token(NamedTuple):
    written: str
    line: int


def find_lines(document: str) -> dict[Path, int]:
    """Return the line, from 1, of each key, table and item of an array in a valid TOML document.

    A table that is only named on the way to another one has the line at which that is done first.
    """
    lines: dict[Path, int] = {}
    counts: dict[Path, int] = {}  # tables in each array of tables so far
    table: Path = ()
    for statement in _statements(document):
        if statement[0].written == "[":
            table = _open_table(statement, lines, counts)
        else:
            _Assignment(statement, lines).read(table)
    return lines


def line_of(path: Sequence[str | int], lines: dict[Path, int]) -> int:
    """Return the line of what a path names, or of the nearest thing around it; 1 for the document."""
    known = (tuple(path[:end]) for end in range(len(path), 0, -1))
    return next((lines[part] for part in known if part in lines), 1)


def _statements(document: str) -> Iterator[list[_Token]]:
    """Cut a document into its headers and assignments, without comments and white space."""
    statement: list[_Token] = []
    line, depth = 1, 0
    for written in _TOKEN.findall(document):
        if written == "\n" and depth == 0 and statement:
            yield statement
            statement = []
        elif not written.isspace() and not written.startswith("#"):
            depth += (written in "[{") - (written in "]}")
            statement.append(_Token(written, line))
        line += written.count("\n")
    if statement:
        yield statement


def _open_table(header: list[_Token], lines: dict[Path, int], counts: dict[Path, int]) -> Path:
    *parents, name = [_unquote(token.written) for token in header if token.written not in {"[", "]", "."}]
    line = header[0].line
    path: Path = ()
    for parent in parents:
        path = (*path, parent)
        lines.setdefault(path, line)
        if path in counts:
            path = (*path, counts[path] - 1)
    path = (*path, name)
    if header[1].written != "[":
        lines[path] = line
        return path
    lines.setdefault(path, line)
    counts[path] = counts.get(path, 0) + 1
    path = (*path, counts[path] - 1)
    lines[path] = line
    return path


class _Assignment:
    """Reads `key = value`, also within inline tables."""

    def __init__(self, tokens: list[_Token], lines: dict[Path, int]) -> None:
        self._tokens = tokens
        self._lines = lines
        self._next = 0

    def read(self, table: Path) -> None:
        path = table
        while (token := self._take()).written != "=":
            if token.written != ".":
                path = (*path, _unquote(token.written))
                self._lines.setdefault(path, token.line)
        self._read_value(path)

    def _read_value(self, path: Path) -> None:
        match self._peek():
            case "[":
                self._read_items(path)
            case "{":
                self._take()
                while self._more("}"):
                    self.read(path)
            case _:
                while self._peek() not in {",", "]", "}", ""}:
                    self._take()

    def _read_items(self, path: Path) -> None:
        self._take()
        index = 0
        while self._more("]"):
            self._lines[(*path, index)] = self._tokens[self._next].line
            self._read_value((*path, index))
            index += 1

    def _more(self, end: str) -> bool:
        """Skip a comma; whether something follows before the end, which is taken."""
        if self._peek() == ",":
            self._take()
        if self._peek() != end:
            return True
        self._take()
        return False

    def _peek(self) -> str:
        return self._tokens[self._next].written if self._next < len(self._tokens) else ""

    def _take(self) -> _Token:
        self._next += 1
        return self._tokens[self._next - 1]


def _unquote(key: str) -> str:
    return str(tomllib.loads(f"key = {key}")["key"]) if key[0] in "\"'" else key


# Returns the keys that may stand where an unknown one was found.
Known = Callable[[Sequence[str | int]], Sequence[str]]

_AT_LINE = re.compile(r" \(at line (\d+), column (\d+)\)$")
_KEY = "[key]"  # Pydantic's word for an error about a name, not about what it names


def describe_syntax(file: str, document: str, error: tomllib.TOMLDecodeError) -> str:
    """Return what keeps a document from being TOML."""
    words = str(error)
    where = _AT_LINE.search(words)
    line = where[1] if where else document.count("\n") + 1
    column = f" (column {where[2]})" if where else ""
    return f"{file}:{line}: is not TOML: {_AT_LINE.sub('', words)}{column}"


def describe_encoding(file: str, error: UnicodeDecodeError) -> str:
    """Return where a document is not UTF-8."""
    line = error.object[: error.start].count(b"\n") + 1
    return f"{file}:{line}: is not TOML: it is not UTF-8 ({error.reason})"


def describe_values(file: str, document: str, error: ValidationError, known: Known) -> str:
    """Return everything that is wrong with the values of a valid TOML document, in the order of its lines."""
    lines = find_lines(document)
    found = []
    for wrong in error.errors():
        path = [part for part in wrong["loc"] if part != _KEY]
        where = ".".join(map(str, path))
        found.append((line_of(path, lines), f"{where}: {_reason(wrong, known)}"))
    return "\n".join(f"{file}:{line}: {words}" for line, words in sorted(found))


def _reason(wrong: Any, known: Known) -> str:
    match wrong["type"]:
        case "extra_forbidden":
            return _unknown_key(str(wrong["loc"][-1]), known(wrong["loc"]))
        case "missing":
            return "is required"
        case "string_pattern_mismatch":
            return f"must be like {wrong['ctx']['pattern']}"
        case "model_type":
            return "must be a table"
        case _:
            return str(wrong["msg"]).removeprefix("Value error, ")


def _unknown_key(key: str, known: Sequence[str]) -> str:
    close = get_close_matches(key, known, n=1)
    hint = f"did you mean {close[0]}? " if close else ""
    return f"there is no such key; {hint}Known are: {', '.join(sorted(known))}"
