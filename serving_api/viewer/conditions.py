"""Conditions on a split's rows: the trees that `where` and `orderby` are read into, and their SQL.

The cost of LIKE is linear in the length of a text. DuckDB's general LIKE backtracks: with `%_%_…` one long text
keeps a thread busy for hours, and DuckDB does not look for interrupts there. Its LIKE is linear for patterns
without `_` that are known when the query is planned, and so are regular expressions (RE2).
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

from serving_api.texts.repository import Condition
from serving_api.viewer.features import SplitColumn

Value = str | int | float | bool | datetime


class NotUnderstood(Exception):
    """A condition or an order is wrong at a position, counted from 0."""

    def __init__(self, position: int, detail: str) -> None:
        super().__init__(f"At character {position + 1}: {detail}")


@dataclass(frozen=True, slots=True)
class Comparison:
    """`column operator value`, or another column."""

    column: SplitColumn
    operator: str  # as in SQL
    value: "Value | SplitColumn"


@dataclass(frozen=True, slots=True)
class Among:
    """`column IN (…)`."""

    column: SplitColumn
    values: tuple[Value, ...]


@dataclass(frozen=True, slots=True)
class Between:
    """`column BETWEEN low AND high`, both included."""

    column: SplitColumn
    low: Value
    high: Value


@dataclass(frozen=True, slots=True)
class Like:
    """`column LIKE pattern`, where `%` is anything and `_` is any one character; the pattern is canonical."""

    column: SplitColumn
    pattern: str
    any_case: bool


@dataclass(frozen=True, slots=True)
class IsNull:
    """`column IS NULL`."""

    column: SplitColumn


@dataclass(frozen=True, slots=True)
class Not:
    """The opposite; unknown stays unknown."""

    part: "Node"


@dataclass(frozen=True, slots=True)
class Joined:
    """Parts joined by `and`, or by `or`."""

    word: str
    parts: tuple["Node", ...]


Node = Comparison | Among | Between | Like | IsNull | Not | Joined


@dataclass(frozen=True, slots=True)
class Ordering:
    """What rows are sorted by; null comes last unless `nulls_first`."""

    column: SplitColumn
    descending: bool
    nulls_first: bool


@dataclass(frozen=True, slots=True)
class Span:
    """Which rows of a list are wanted."""

    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class Filter:
    """Which rows to list, and in which order; by default all of them, in the split's own order."""

    where: Node | None
    orderby: tuple[Ordering, ...]


@dataclass(frozen=True, slots=True)
class NumberedRow:
    """A row of a split."""

    place: int  # in the whole split, from 0
    values: tuple[Any, ...]  # of its columns, in their order


@dataclass(frozen=True, slots=True)
class Slice:
    """Some of the rows of a list."""

    rows: list[NumberedRow]
    total: int  # rows of the list
    whole: bool = True  # whether the list shows all that was asked for


def columns_in(node: Node) -> Iterator[SplitColumn]:
    """Yield the columns that a condition looks at."""
    match node:
        case Joined(_, parts):
            for part in parts:
                yield from columns_in(part)
        case Not(part):
            yield from columns_in(part)
        case Comparison(column, _, SplitColumn() as other):
            yield from (column, other)
        case _:
            yield node.column


PATTERN_MAX = 1_000
# Segments between `%` are looked for one after the other.
PERCENTS_MAX = 8
# Each `_` may double the states of the expression's automaton, and each `%` multiplies them; with more of both,
# RE2 gives up its automaton, and a text of 64 KiB takes over 0.1 s instead of 0.001 s.
UNDERSCORES_MAX = 8
PERCENTS_WITH_UNDERSCORES_MAX = 2

_RUN = re.compile("[%_]*%[%_]*")


def canonical(pattern: str) -> str:
    """Return the pattern that means the same, with each run of `%` and `_` as underscores and then one `%`.

    Raises:
        ValueError: it is longer than a pattern may be, or has too many wildcards; says so.
    """
    if "\0" in pattern:
        raise ValueError("a pattern may not contain NUL.")  # DuckDB's escape character where none is named
    if len(pattern) > PATTERN_MAX:
        raise ValueError(f"a pattern may have {PATTERN_MAX} characters.")
    short = _RUN.sub(lambda run: "_" * run[0].count("_") + "%", pattern)
    percents, underscores = short.count("%"), short.count("_")
    if percents > PERCENTS_MAX or underscores > UNDERSCORES_MAX:
        raise ValueError(f"a pattern may have {PERCENTS_MAX} % and {UNDERSCORES_MAX} _.")
    if underscores and percents > PERCENTS_WITH_UNDERSCORES_MAX:
        raise ValueError(f"a pattern with _ may have {PERCENTS_WITH_UNDERSCORES_MAX} %.")
    return short


def like(expression: str, pattern: str, any_case: bool) -> Condition:
    """Return the condition that the text of an SQL expression fits a canonical pattern; null stays null."""
    text, given = (f"lower({expression})", "lower(?)") if any_case else (expression, "?")
    if "_" not in pattern:
        return f"{text} like {given}", [pattern]
    # `.` is one character, as `_` is; with the option s also the end of a line. To escape adds no letters, so
    # lower() does to the expression what it does to the pattern.
    regular = re.escape(pattern).replace("_", ".").replace("%", ".*")
    return f"regexp_full_match({text}, {given}, 's')", [regular]


Names = Mapping[str, str]  # what a column is called in SQL, where that is not its own name

# In the replica an id is no text.
LIVE_NAMES: Names = {"id": "id::varchar"}


class Key(NamedTuple):
    """What rows are sorted by."""

    expression: Condition
    how: str


def condition_of(node: Node | None, names: Names) -> Condition:
    """Return the WHERE clause of a tree, and its values; without a tree all rows fit."""
    match node:
        case None:
            return "true", []
        case Joined(word, parts):
            found = [condition_of(part, names) for part in parts]
            return f" {word} ".join(f"({sql})" for sql, _ in found), [value for _, some in found for value in some]
        case Not(part):
            sql, values = condition_of(part, names)
            return f"not ({sql})", values
        case Comparison(column, operator, SplitColumn() as other):
            return f"{_name(column, names)} {operator} {_name(other, names)}", []
        case Like(column, pattern, any_case):
            return like(_name(column, names), pattern, any_case)
        case _:
            sql, values = _predicate(node)
            return f"{_name(node.column, names)} {sql}", values


def _predicate(node: Comparison | Among | Between | IsNull) -> Condition:
    match node:
        case Comparison(_, operator, value):
            return f"{operator} ?", [value]
        case Among(_, values):
            return f"in ({', '.join('?' * len(values))})", list(values)
        case Between(_, low, high):
            return "between ? and ?", [low, high]
        case IsNull():
            return "is null", []


def keys_of(orderings: Sequence[Ordering], names: Names) -> list[Key]:
    """Return what an ORDER BY clause sorts by."""
    return [Key((_name(one.column, names), []), _direction(one)) for one in orderings]


def _direction(one: Ordering) -> str:
    return f"{'desc' if one.descending else 'asc'} nulls {'first' if one.nulls_first else 'last'}"


def _name(column: SplitColumn, names: Names) -> str:
    return names.get(column.name, column.quoted)
