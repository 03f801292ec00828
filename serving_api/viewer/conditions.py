"""Reads what clients send in `where` and `orderby`, and names what is wrong there."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import duckdb

from core.web.problems import FieldError, InvalidFields
from serving_api.texts.query import Condition
from serving_api.viewer.columns import Column
from serving_api.viewer.like import like
from serving_api.viewer.slices import Filter, Span
from serving_api.viewer.where import (
    Among,
    Between,
    Comparison,
    IsNull,
    Joined,
    Like,
    Node,
    Not,
    NotUnderstood,
    Ordering,
    parse_orderby,
    parse_where,
)

T = TypeVar("T")


def read_filter(where: str | None, orderby: str | None, columns: Sequence[Column]) -> Filter:
    """Return what is asked of a split with these columns.

    Raises:
        InvalidFields: either cannot be understood; both are named if both are wrong.
    """
    errors: list[FieldError] = []
    node = _read("where", where, columns, parse_where, errors)
    orderings = _read("orderby", orderby, columns, parse_orderby, errors)
    if errors:
        raise InvalidFields(errors)
    return Filter(node, orderings or ())


def _read(
    name: str,
    text: str | None,
    columns: Sequence[Column],
    parse: Callable[[str, Sequence[Column]], T],
    errors: list[FieldError],
) -> T | None:
    try:
        return None if text is None else parse(text, columns)
    except NotUnderstood as error:
        errors.append(FieldError(f"invalid_{name}", str(error), parameter=name))
        return None


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
        case Comparison(column, operator, Column() as other):
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


def list_page(
    cursor: duckdb.DuckDBPyConnection,
    columns: str,
    source: str,
    where: Condition,
    keys: Sequence[Key],
    order: str,
    span: Span,
) -> tuple[int, list[tuple[Any, ...]]]:
    """Return how many rows of the source fit, and the columns of some, sorted by the keys, then as `order` says.

    The rows are read once. The first of the columns is never null, and all that `order` names are among them.
    """
    # Named by number: a column of the replica is not always what the list shows under its name.
    named = "".join(f", {key.expression[0]} as key_{number}" for number, key in enumerate(keys))
    sorting = ", ".join([*(f"key_{number} {key.how}" for number, key in enumerate(keys)), order])
    statement = f"""
        with fitting as materialized (select {columns}{named} from {source} where {where[0]})
        select (select count(*) from fitting), {columns}
        from (select 1) left join (select * from fitting order by {sorting} limit ? offset ?) on true
        order by {sorting}
    """  # noqa: S608 - known columns only
    values = [value for key in keys for value in key.expression[1]]
    found = cursor.execute(statement, [*values, *where[1], span.length, span.offset]).fetchall()
    return found[0][0], [row[1:] for row in found if row[1] is not None]


def _direction(one: Ordering) -> str:
    return f"{'desc' if one.descending else 'asc'} nulls {'first' if one.nulls_first else 'last'}"


def _name(column: Column, names: Names) -> str:
    return names.get(column.name, column.quoted)
