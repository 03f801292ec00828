"""Fills and changes the replica's tables; reads its layout, its point of the change feed, API keys and models."""

from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

import duckdb

from core.web.keys import ValidKey
from serving_api.replica import tables
from serving_api.replica.feed import EVERYTHING, FeedSnapshot, StoredModel, stage
from serving_api.replica.tables import FORGOTTEN, LAYOUT, TABLES

Cursor = duckdb.DuckDBPyConnection


class Point(NamedTuple):
    """A version, of the change feed of one database."""

    identity: str
    version: int


@dataclass(frozen=True, slots=True)
class State:
    """A point in the change feed of one Postgres."""

    identity: str  # of the history that versions count in
    cursor: int  # every change stamped below is applied
    version: int  # the highest stamp applied; 0 when there is none
    read_at: datetime  # when Postgres was last read, UTC
    built: int = 0  # the cursor when the file was begun: texts forgotten before it were never in the file

    @property
    def point(self) -> Point:
        """The point of the change feed that the replica shows."""
        return Point(self.identity, self.version)


def get_layout(connection: Cursor) -> int:
    """Return the layout that the file has; an empty file gets the tables of the current one."""
    connection.execute("begin")
    if connection.execute("select count(*) from duckdb_tables()").fetchall() == [(0,)]:
        for name, columns in TABLES.items():
            connection.execute(f"create table {name} ({columns})")
        connection.execute("insert into layout values (?)", [LAYOUT])
    number = get_number(connection, "select max(number) from layout")
    connection.commit()
    return number


def get_point(cursor: Cursor) -> Point:
    """Return the point of the change feed that this transaction sees."""
    return Point(*cursor.execute("select identity, version from state").fetchall()[0])


def get_state_or_none(cursor: Cursor) -> State | None:
    """Return the state; None while nothing is loaded."""
    found = cursor.execute("select identity, cursor, version, read_at, built from state").fetchall()
    return State(*found[0]) if found else None


def replace_state(cursor: Cursor, state: State) -> None:
    """Store the state."""
    cursor.execute("delete from state")
    values = [state.identity, state.cursor, state.version, state.read_at, state.built]
    cursor.execute("insert into state values (?, ?, ?, ?, ?)", values)


def list_keys(cursor: Cursor) -> list[ValidKey]:
    """Return the valid API keys, in the order of their hashes."""
    statement = """
        select hash, id, name, scopes, requests_per_second, burst, datasets from api_keys order by hash
    """
    return [ValidKey.from_row(row) for row in cursor.execute(statement).fetchall()]


def replace_keys(cursor: Cursor, keys: list[ValidKey]) -> None:
    """Store the valid API keys."""
    cursor.execute("delete from api_keys")
    for key in keys:
        datasets = None if key.datasets is None else sorted(key.datasets)
        limits = [key.requests_per_second, key.burst, datasets]
        cursor.execute(
            "insert into api_keys values (?, ?, ?, ?, ?, ?, ?)",
            [key.hash, key.id, key.name, sorted(key.scopes), *limits],
        )


def list_models(cursor: Cursor) -> list[StoredModel]:
    """Return the models of all datasets, the newest first."""
    statement = f"select {', '.join(StoredModel._fields)} from models order by created_at desc, version"  # noqa: S608
    return [StoredModel(*row) for row in cursor.execute(statement).fetchall()]


def replace_models(cursor: Cursor, models: list[StoredModel]) -> None:
    """Store the models."""
    cursor.execute("delete from models")
    for model in models:
        cursor.execute("insert into models values (?, ?, ?, ?, ?, ?, ?)", [*model])


def count_items(cursor: Cursor) -> int:
    """Return the number of labelled and disputed texts of all datasets."""
    return get_number(cursor, "select count(*) from items")


def get_last_forgotten(cursor: Cursor) -> int:
    """Return the version in which a text was forgotten last; 0 for none."""
    return get_number(cursor, FORGOTTEN)


def get_number(cursor: Cursor, statement: str) -> int:
    """Return the one number that a statement gives."""
    number: int = cursor.execute(statement).fetchall()[0][0]
    return number


def load(cursor: duckdb.DuckDBPyConnection, source: FeedSnapshot, end: int, threads: int) -> None:
    """Fill an empty file with everything that is stamped below `end`."""
    # With several threads, storing a batch takes twice the processor time.
    cursor.execute("set threads = 1")
    stage(cursor, source, EVERYTHING, 0, end)
    cursor.execute(f"set threads = {threads:d}")
    for statement in tables.LOAD:
        cursor.execute(statement)


class Applied(NamedTuple):
    """The changes of a window."""

    ids: list[UUID]  # of the changed texts
    answered_at: list[datetime]  # UTC: the last answer to each text with new answers; empty if many texts changed


def apply(cursor: duckdb.DuckDBPyConnection) -> Applied:
    """Apply the staged rows of a window to the tables. Call it in a transaction."""
    ids = [row[0] for row in cursor.execute(tables.CHANGED).fetchall()]
    new_answers = tables.list_new_answers(len(ids))
    answered_at = [moment for (moment,) in cursor.execute(new_answers, ids).fetchall()] if new_answers else []
    cursor.execute(tables.DERIVE)
    withdrawn: int = cursor.execute("select count(*) from new_tombstones").fetchall()[0][0]
    for statement, takes_ids in tables.merge(len(ids), withdrawn):
        cursor.execute(statement, ids if takes_ids else None)
    recent: int = cursor.execute("select count(*) from recent_items").fetchall()[0][0]
    for statement in tables.trim_recent(recent):
        cursor.execute(statement)
    return Applied(ids, answered_at)
