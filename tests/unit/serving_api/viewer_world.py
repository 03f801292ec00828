"""Rows of every kind, in a replica's tables and in a Parquet file, and a plain model of what SQL says of them."""

import math
import re
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid5

import duckdb
import pyarrow as pa
from hypothesis import strategies as st
from pyarrow import parquet

from serving_api.columns import COLUMNS, typed
from serving_api.exports.export_files import with_zone
from serving_api.replica.tables import COUNT, TABLES
from serving_api.search.repository import list_ranked
from serving_api.texts.query import TextsQuery
from serving_api.texts.service import Sample
from serving_api.viewer.repository import LiveSplit, Ranked, StoredSplit
from serving_api.viewer.split_rows import columns_of

Row = dict[str, Any]

FIRST = datetime(2026, 11, 1)  # noqa: DTZ001 - the replica holds UTC without a zone
TEXTS = ["", "a", "A", "b", "ab", "a'b", 'a"b', "ä", "Ä", "%", "_", "a%", "a\\b", "OR 1=1", "有毒", "null"]
SCORES = [None, -1.5, 0.0, 0.25, 0.5, 1.0]
LABELS = [None, "toxic", "non_toxic"]
GROUP_ROWS = 7


def make_rows(number: int) -> list[Row]:
    """Return rows in the order of a split: times, some of them the same, then ids from the greatest down."""
    rows = [_make_row(n) for n in range(number)]
    rows.sort(key=lambda row: row["id"], reverse=True)
    return sorted(rows, key=lambda row: row["labelled_at"])


def _make_row(n: int) -> Row:
    return dict.fromkeys(COLUMNS) | {
        "id": uuid5(UUID(int=0), str(n)),
        "dataset": "toxicity",
        "text": TEXTS[n % len(TEXTS)],
        "label": LABELS[n % 3],
        "status": "labelled" if n % 3 else "disputed",
        "agreement": [0.5, 1.0][n % 2],
        "votes": "{}",
        "annotations": n % 4,
        "complete": n % 4 > 1,
        "confidence": SCORES[n % 5],
        "rule": "majority",
        "rule_version": 1,
        "decided_by": "annotators",
        "source": [None, "forum", "a"][n % 3],
        "claimed_label": LABELS[n // 3 % 3],
        "score": SCORES[n % len(SCORES)],
        "metadata": '{"n": 1}',
        "enrichment": "{}",
        "received_at": FIRST + timedelta(hours=n % 5),
        "labelled_at": FIRST + timedelta(hours=n // 3),
    }


ROWS = make_rows(50)


def make_replica(rows: Sequence[Row]) -> duckdb.DuckDBPyConnection:
    """Return a database with the replica's tables."""
    connection = duckdb.connect()
    for name, columns in TABLES.items():
        connection.execute(f"create table {name} ({columns})")
    names = ", ".join(COLUMNS)
    marks = ", ".join("?" * len(COLUMNS))
    # As they come, some are before older ones.
    for row in [*rows[1::2], *rows[::2]]:
        connection.execute(
            f"insert into items ({names}, version, annotators, document) values ({marks}, 1, '', '{{}}')",  # noqa: S608
            [row[name] for name in COLUMNS],
        )
    for statement in COUNT:
        connection.execute(statement)
    return connection


_NO_SAMPLE = Sample([], 1)


def live_split(
    replica: duckdb.DuckDBPyConnection, dataset: str = "toxicity", sample: Sample = _NO_SAMPLE
) -> LiveSplit:
    """Return the live labels of a replica, without a search index."""

    def rank(query: TextsQuery) -> Ranked:
        return list_ranked(replica, query, None, math.inf)

    return LiveSplit(replica, dataset, lambda: sample, rank)


def stored_split(connection: duckdb.DuckDBPyConnection, file: Path, table: pa.Table) -> StoredSplit:
    """Write a table as a split's file, and return the split."""
    parquet.write_table(table, file, row_group_size=GROUP_ROWS)
    return StoredSplit(connection, str(file), len(table), columns_of(table.schema))


def read_table(replica: duckdb.DuckDBPyConnection) -> pa.Table:
    """Return the rows of a replica as a split has them."""
    statement = f"select {typed()} from items order by labelled_at, items.id desc"  # noqa: S608
    table = replica.execute(statement).to_arrow_table()
    return table.cast(with_zone(table.schema))


Model = Callable[[Row], bool | None]
Where = tuple[str, Model]  # a condition as a client writes it, and what it says of a row; None: unknown

_TEXT = ("text", "label", "source", "claimed_label")
_NUMBERS = ("score", "annotations", "confidence")
_OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    "=": lambda a, b: a == b,
    "==": lambda a, b: a == b,
    "<>": lambda a, b: a != b,
    "!=": lambda a, b: a != b,
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
}


def _in_order(value: Any) -> Any:
    # DuckDB compares strings by their bytes.
    return value.encode() if isinstance(value, str) else value


def _literal(value: Any) -> str:
    if isinstance(value, datetime):
        return f"'{value.isoformat()}Z'"
    return "'" + value.replace("'", "''") + "'" if isinstance(value, str) else repr(value)


@st.composite
def _columns_and_values(draw: st.DrawFn, number: int) -> tuple[str, list[Any]]:
    column = draw(st.sampled_from([*_TEXT, *_NUMBERS, "labelled_at"]))
    if column in _TEXT:
        values: st.SearchStrategy[Any] = st.sampled_from([*TEXTS, "toxic", "forum"])
    elif column in _NUMBERS:
        values = st.sampled_from([-2, 0, 1, 2, 0.25, 0.5, 1e300, 10**18, 10**30])
    else:
        values = st.integers(0, 30).map(lambda hours: FIRST + timedelta(hours=hours))
    return column, draw(st.lists(values, min_size=number, max_size=number))


def _both(known: Callable[[Any], bool], value: Any) -> bool | None:
    return None if value is None else known(value)


@st.composite
def _comparisons(draw: st.DrawFn) -> Where:
    column, [value] = draw(_columns_and_values(1))
    sign = draw(st.sampled_from([*_OPERATORS]))
    compare = _OPERATORS[sign]
    if draw(st.booleans()):
        model: Model = lambda row: _both(lambda held: compare(_in_order(held), _in_order(value)), row[column])  # noqa: E731
        return f"{draw(_names(column))} {sign} {_literal(value)}", model
    turned: Model = lambda row: _both(lambda held: compare(_in_order(value), _in_order(held)), row[column])  # noqa: E731
    return f"{_literal(value)}{sign}{draw(_names(column))}", turned


def _names(column: str) -> st.SearchStrategy[str]:
    return st.sampled_from([column, f'"{column}"', column.upper()])


@st.composite
def _among(draw: st.DrawFn) -> Where:
    column, values = draw(_columns_and_values(draw(st.integers(1, 3))))
    sql = f"{column} IN ({', '.join(map(_literal, values))})"
    return sql, lambda row: _both(lambda held: held in values, row[column])


@st.composite
def _between(draw: st.DrawFn) -> Where:
    column, [low, high] = draw(_columns_and_values(2))
    sql = f"{column} between {_literal(low)} and {_literal(high)}"
    return sql, lambda row: _both(lambda held: _in_order(low) <= _in_order(held) <= _in_order(high), row[column])


@st.composite
def _like(draw: st.DrawFn) -> Where:
    column = draw(st.sampled_from(_TEXT))
    pattern = draw(st.sampled_from([*TEXTS, "%a%", "_", "__", "%_", "A%", "%'%", "%Ä", "t%c"]))
    word = draw(st.sampled_from(["LIKE", "ilike"]))
    pieces = [{"%": ".*", "_": "."}.get(character, re.escape(character)) for character in pattern]
    regex = re.compile("".join(pieces), re.DOTALL | (re.IGNORECASE if word == "ilike" else 0))
    sql = f"{column} {word} {_literal(pattern)}"
    return sql, lambda row: _both(lambda held: regex.fullmatch(held) is not None, row[column])


@st.composite
def _nulls(draw: st.DrawFn) -> Where:
    column = draw(st.sampled_from([*_TEXT, *_NUMBERS]))
    return f"{column} is null", lambda row: row[column] is None


@st.composite
def _column_pairs(draw: st.DrawFn) -> Where:
    one, other = draw(st.sampled_from([("label", "claimed_label"), ("score", "confidence"), ("text", "source")]))
    sign = draw(st.sampled_from([*_OPERATORS]))

    def model(row: Row) -> bool | None:
        if row[one] is None or row[other] is None:
            return None
        return _OPERATORS[sign](_in_order(row[one]), _in_order(row[other]))

    return f"{one}{sign}{other}", model


def _not(of: Where) -> Where:
    def model(row: Row) -> bool | None:
        held = of[1](row)
        return None if held is None else not held

    return f"not ({of[0]})", model


def _joined(parts: Sequence[Where], word: str, decisive: bool) -> Where:
    def model(row: Row) -> bool | None:
        held = [part[1](row) for part in parts]
        if decisive in held:
            return decisive
        return None if None in held else not decisive

    return f" {word} ".join(f"({sql})" for sql, _ in parts), model


def _all(parts: Sequence[Where]) -> Where:
    return _joined(parts, "AND", decisive=False)


def _any(parts: Sequence[Where]) -> Where:
    return _joined(parts, "or", decisive=True)


def _negated(of: Where) -> Where:
    """Write NOT within the predicate."""
    sql, _ = of
    for before, after in ((" IN ", " not in "), (" between ", " NOT BETWEEN "), (" is null", " is NOT null")):
        if before in sql:
            return sql.replace(before, after, 1), _not(of)[1]
    return _not(of)


_plain = st.one_of(_comparisons(), _among(), _between(), _like(), _nulls(), _column_pairs())
_predicates = st.one_of(_plain, st.one_of(_among(), _between(), _nulls()).map(_negated))

wheres = st.recursive(
    _predicates,
    lambda inner: st.one_of(
        inner.map(_not),
        st.lists(inner, min_size=2, max_size=3).map(_all),
        st.lists(inner, min_size=2, max_size=3).map(_any),
    ),
    max_leaves=8,
)
