"""Says what is wrong in a TOML file: `FILE:LINE: key: reason`, a line each."""

import re
import tomllib
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from typing import Any

from pydantic import ValidationError

from core.toml_lines import find_lines, line_of

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
