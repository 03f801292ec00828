"""Queries of changes: items and tombstones in the order of their versions."""

from datetime import datetime
from itertools import pairwise
from typing import Any, NamedTuple
from uuid import UUID

import duckdb

from serving_api.texts.repository import READY, Row, list_rows

# Tombstones have no `labelled_at`: they come first in their version.
_NO_TIME = datetime.min  # noqa: DTZ901 - the replica holds UTC without a zone
_VERSION_WHOLE = (datetime.max, UUID(int=2**128 - 1))  # noqa: DTZ901
_VERSION_MAX = 2**63 - 1

_REST_OF_VERSION = (
    "version = $version and labelled_at >= $labelled_at and (labelled_at > $labelled_at or id > $id)"
)
_VERSIONS_AFTER = "version > $version and version <= $end"
_ORDER = "version, labelled_at, id"


class ChangePosition(NamedTuple):
    """The last change that was read. Positions are ordered as changes are."""

    version: int
    labelled_at: datetime
    id: UUID


class Change(NamedTuple):
    """The current state of an item, or its tombstone."""

    position: ChangePosition
    row: Row
    is_delete: bool
    ends_version: bool  # it is the last change of its version


def after_version(version: int) -> ChangePosition:
    """Return the position after everything of a version."""
    return ChangePosition(version, *_VERSION_WHOLE)


def find_page_end(cursor: duckdb.DuckDBPyConnection, dataset: str, since: int, limit: int) -> int | None:
    """Return the version that the `limit`-th change after `since` has, or else the last; None if there is none."""
    statement = f"""
        select max(version) from (
            (select version from {_table(cursor, since)} where dataset = $dataset and version > $since
             order by version limit $limit)
            union all
            (select version from tombstones where dataset = $dataset and version > $since
             order by version limit $limit)
            order by version limit $limit
        )
    """  # noqa: S608 - known names only
    values = {"dataset": dataset, "since": since, "limit": limit}
    end: int | None = cursor.execute(statement, values).fetchall()[0][0]
    return end


def list_changes(
    cursor: duckdb.DuckDBPyConnection, dataset: str, after: ChangePosition, end: int | None, count: int
) -> tuple[list[Change], bool]:
    """Return the first `count` changes after a position, of versions up to `end`, and whether more follow."""
    is_within = after[1:] != _VERSION_WHOLE
    table = _table(cursor, after.version - 1 if is_within else after.version)
    values = {"dataset": dataset, "version": after.version}
    found: list[Change] = []
    if is_within:
        # Two queries: an `or` over both would read everything, for DuckDB could skip no row group by it.
        rest = {"labelled_at": after.labelled_at, "id": after.id}
        found = _list(cursor, table, _REST_OF_VERSION, values | rest, count + 1)
    if len(found) <= count:
        end = _VERSION_MAX if end is None else end
        found += _list(cursor, table, _VERSIONS_AFTER, values | {"end": end}, count + 1 - len(found))
    ends = [change.position.version != following.position.version for change, following in pairwise(found)]
    marked = [change._replace(ends_version=ends) for change, ends in zip(found, [*ends, True], strict=False)]
    return marked[:count], len(found) > count


def newest_versions(cursor: duckdb.DuckDBPyConnection, since: int) -> dict[str, int]:
    """Return the highest version of each dataset that has changed after `since`."""
    statement = f"""
        select dataset, max(version) from (
            select dataset, version from {_table(cursor, since)} where version > $since
            union all
            select dataset, version from tombstones where version > $since
        ) group by dataset
    """  # noqa: S608 - known names only
    return dict(cursor.execute(statement, {"since": since}).fetchall())


def _list(
    cursor: duckdb.DuckDBPyConnection, table: str, where: str, values: dict[str, Any], count: int
) -> list[Change]:
    values = values | {"count": count}
    # As in texts.repository.list_by_rank: narrow rows are sorted, and only the few wide ones are fetched.
    chosen = f"select rowid from {table} where dataset = $dataset and {where} order by {_ORDER} limit $count"  # noqa: S608
    items = f"select {READY}, version from {table} where rowid in ({chosen})"  # noqa: S608
    tombstones = f"""
        select id, dataset, version, labelled_at
        from (select *, $no_time::timestamp as labelled_at from tombstones)
        where dataset = $dataset and {where} order by {_ORDER} limit $count
    """  # noqa: S608
    found = [_change(row, is_delete=False) for row in list_rows(cursor, items, values)]
    found += [
        _change(row, is_delete=True) for row in list_rows(cursor, tombstones, values | {"no_time": _NO_TIME})
    ]
    return sorted(found, key=lambda change: change.position)[:count]


def _change(row: Row, *, is_delete: bool) -> Change:
    return Change(
        ChangePosition(row["version"], row["labelled_at"], row["id"]), row, is_delete, ends_version=False
    )


def _table(cursor: duckdb.DuckDBPyConnection, since: int) -> str:
    """Return the smallest table that has all items changed after `since`."""
    (recent_from,) = cursor.execute("select version from recent_from").fetchall()[0]
    return "recent_items" if since >= recent_from else "items"
