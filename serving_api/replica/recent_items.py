"""Copies of the items that changed lately, in the order of their versions: who follows the changes reads these.

`items` is in the order of the labels' times. There, what changed last lies scattered over all of it, and DuckDB
takes a quarter of a millisecond to fetch one such row, whatever the index.
"""

import duckdb

# A merge looks through all of them for what changes again.
ROWS_MAX = 200_000
ROWS_KEPT = 100_000

# `recent_items` holds each item whose version is higher than the one in `recent_from`.
LOAD = (
    f"""
    insert into recent_from
    select coalesce((select version from items order by version desc limit 1 offset {ROWS_KEPT}), 0)
    """,  # noqa: S608 - a constant
    """
    insert into recent_items select * from items where version > (select version from recent_from)
    order by version, labelled_at, id
    """,
)
MERGE = (
    "delete from recent_items using new_items n where recent_items.id = n.id",
    "delete from recent_items using new_tombstones n where recent_items.id = n.id",
    "insert into recent_items by name select * from new_items order by version, labelled_at, id",
)


def trim(cursor: duckdb.DuckDBPyConnection) -> None:
    """Let the older half go when there are many; goes with every merge."""
    if cursor.execute("select count(*) from recent_items").fetchall()[0][0] <= ROWS_MAX:
        return
    cursor.execute(
        """
        update recent_from
        set version = (select version from recent_items order by version desc limit 1 offset ?)
        """,
        [ROWS_KEPT],
    )
    cursor.execute("delete from recent_items where version <= (select version from recent_from)")
