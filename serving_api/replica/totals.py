"""Kept totals: how many texts there are of each kind, so that nobody counts them when asked.

They change in the transaction that changes the items: a build counts, a merge takes away what its texts were and
adds what they are now. Of a kind without texts there is no row. Uses the temporary tables of replica_tables.
"""

# What can be filtered by without counting.
KINDS = ("dataset", "label", "status", "complete", "source", "language")

TABLES = {
    "totals": """
        dataset varchar not null, label varchar, status varchar not null, complete boolean not null,
        source varchar, language varchar, texts bigint not null
    """,
    "totals_by_day": "dataset varchar not null, day date not null, texts bigint not null",
    "totals_by_annotator": "dataset varchar not null, annotator varchar not null, answers bigint not null",
}

_CHANGED = "(select id from new_items union all select id from new_tombstones)"

# Of each table: what it counts by, of the items or of what is made of them.
_COUNTED = {
    "totals": (", ".join(KINDS), "{0}"),
    "totals_by_day": ("dataset, labelled_at::date as day", "{0}"),
    "totals_by_annotator": (
        "dataset, annotator",
        # Between the names is what replica_tables.SEPARATOR says.
        (
            "(select dataset, unnest(string_split(trim(annotators, chr(0)), chr(0))) as annotator from {0} "
            "where annotators <> '')"
        ),
    ),
}


def _build(table: str) -> str:
    kind, of = _COUNTED[table]
    return f"insert into {table} select {kind}, count(*) from {of.format('items')} group by all"  # noqa: S608


def _take_away(table: str) -> str:
    kind, of = _COUNTED[table]
    changed = f"(select * from items where id in {_CHANGED} and {{items}})"  # noqa: S608
    return f"""
        create or replace temp table changed_{table} as
        select {kind}, -count(*) as change from {of.format(changed)} group by all
    """  # noqa: S608


def _add(table: str) -> str:
    kind, of = _COUNTED[table]
    return f"insert into changed_{table} select {kind}, count(*) from {of.format('new_items')} group by all"  # noqa: S608


def _replace(table: str) -> tuple[str, ...]:
    """Write the kinds that changed anew; the others stay untouched."""
    columns = [column.split()[0] for column in TABLES[table].split(",")]
    *kind, number = columns
    names = ", ".join(kind)
    same = " and ".join(f"t.{name} is not distinct from c.{name}" for name in kind)
    kinds = f"(select {names}, sum(change)::bigint as change from changed_{table} group by all)"  # noqa: S608
    return (
        f"""
        create or replace temp table changed_{table} as
        select {", ".join(f"c.{name}" for name in kind)}, c.change + coalesce(t.{number}, 0) as {number}
        from {kinds} c left join {table} t on {same} where c.change <> 0
        """,  # noqa: S608
        f"delete from {table} t using changed_{table} c where {same}",  # noqa: S608
        f"insert into {table} select * from changed_{table} where {number} > 0",  # noqa: S608
    )


# After the load of a build; before and after what a merge does.
BUILD = tuple(_build(table) for table in TABLES)
BEFORE_MERGE = tuple(_take_away(table) for table in TABLES)
AFTER_MERGE = tuple(statement for table in TABLES for statement in (_add(table), *_replace(table)))
