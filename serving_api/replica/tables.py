"""The replica's tables, and the statements that bring a window of the change feed into them."""

from enum import StrEnum

from core.models import AnnotationStatus
from serving_api.columns import STORED, json_object

# The columns by which `totals` counts.
KINDS = ("dataset", "label", "status", "complete", "source", "language")

# Totals, so that no request has to count. The transaction that changes the items updates them: a build counts all
# items; a merge subtracts the old versions of its texts and adds the new ones. Kinds without texts have no row.
_TOTALS = {
    "totals": f"""
        {", ".join(STORED[kind].definition for kind in KINDS)}, texts bigint not null
    """,
    "totals_by_day": "dataset varchar not null, day date not null, texts bigint not null",
    "totals_by_annotator": "dataset varchar not null, annotator varchar not null, answers bigint not null",
}

# Raise it with each change of a table here: a file of another layout is rebuilt.
LAYOUT = 11


class Role(StrEnum):
    """Whose annotation it is."""

    ANNOTATOR = "annotator"
    ADJUDICATOR = "adjudicator"  # decides a dispute; the answer is not one of its votes


# `document` is not compressed: a page takes 100 of a vector's 2048, and DuckDB would unpack all of them.
TABLES = {
    "items": f"""
        {", ".join(column.definition for column in STORED.values())},
        annotators varchar not null, document varchar not null using compression uncompressed
    """,
    "annotations": """
        id uuid not null, text_id uuid not null, dataset varchar not null, role varchar not null,
        annotator varchar not null, value varchar, status varchar not null, created_at timestamp not null,
        updated_at timestamp not null
    """,
    "tombstones": """
        id uuid not null, dataset varchar not null, version bigint not null, forgotten boolean not null
    """,
    "api_keys": """
        hash blob not null, id varchar not null, name varchar not null, scopes varchar[] not null,
        requests_per_second double, burst integer, datasets varchar[]
    """,
    "models": """
        dataset varchar not null, version varchar not null, created_at timestamp not null,
        is_active boolean not null, activated_at timestamp, decision varchar, manifest varchar not null
    """,
    "layout": "number integer not null",
    "state": """
        identity varchar not null, cursor bigint not null, version bigint not null,
        read_at timestamp not null, built bigint not null
    """,
    **_TOTALS,
}
# Copies of the items with a version above `recent_from`, in the order of their versions. In `items`, which is in
# the order of the labels' times, the latest changes are scattered. Over 1 M texts, 100 of them take 5 ms of
# processor time from here and 41 ms from `items` (`make bench ONLY=changes`).
TABLES |= {"recent_items": TABLES["items"], "recent_from": "version bigint not null"}


# Before, between and after the names in `annotators`: Postgres stores no text that holds it.
SEPARATOR = "\0"


def derive(items: str, annotations: str, order: str = "true") -> str:
    """Return the query of items with two derived columns: annotators with a submitted annotation, and the JSON.

    Making a page of 100 from its columns takes DuckDB and Python twice as long. `order` is the order of the rows
    in the table. They are sorted before the JSON is added, which is half of their bytes.
    """
    return f"""
        select *, {json_object()} as document from (
            select i.*, coalesce(annotators, '') as annotators
            from {items} as i left join (
                select text_id, chr(0) || string_agg(distinct annotator, chr(0)) || chr(0) as annotators
                from {annotations} where status = '{AnnotationStatus.SUBMITTED}' and role = '{Role.ANNOTATOR}'
                group by text_id
            ) as said on said.text_id = i.id
            order by {order}
        )
    """  # noqa: S608


CHANGED = "select id from new_items union select id from new_tombstones"

# For each table of totals: the columns that it counts by, and the relation that it counts.
_COUNTED = {
    "totals": (", ".join(KINDS), "{0}"),
    "totals_by_day": ("dataset, labelled_at::date as day", "{0}"),
    "totals_by_annotator": (
        "dataset, annotator",
        # Between the names is SEPARATOR.
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
    changed = f"(select * from items where id in ({CHANGED}) and {{items}})"  # noqa: S608
    return f"""
        create or replace temp table changed_{table} as
        select {kind}, -count(*) as change from {of.format(changed)} group by all
    """  # noqa: S608


def _add(table: str) -> str:
    kind, of = _COUNTED[table]
    return f"insert into changed_{table} select {kind}, count(*) from {of.format('new_items')} group by all"  # noqa: S608


def _replace(table: str) -> tuple[str, ...]:
    """Return the statements that replace the rows of the kinds that changed."""
    columns = [column.split()[0] for column in _TOTALS[table].split(",")]
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


# After the load of a build.
COUNT = tuple(_build(table) for table in _TOTALS)

# A merge looks through all of `recent_items` for what changes again.
RECENT_MAX = 200_000
RECENT_KEPT = 100_000

_COPY_RECENT = (
    f"""
    insert into recent_from
    select coalesce((select version from items order by version desc limit 1 offset {RECENT_KEPT}), 0)
    """,  # noqa: S608 - a constant
    """
    insert into recent_items select * from items where version > (select version from recent_from)
    order by version, labelled_at, id
    """,
)
_MERGE_RECENT = (
    "delete from recent_items using new_items n where recent_items.id = n.id",
    "delete from recent_items using new_tombstones n where recent_items.id = n.id",
    "insert into recent_items by name select * from new_items order by version, labelled_at, id",
)

# Run after `items`, `annotations` and `tombstones` are filled.
FINISH = (
    # Not unique: DuckDB checks uniqueness too early to delete and insert a key in one transaction. The statements
    # below keep one row for each id.
    "create index items_id on items (id)",
    "create index annotations_text_id on annotations (text_id)",
    *COUNT,
    *_COPY_RECENT,
)

_JOINED = "(select * from new_labels join new_texts using (id) left join new_predictions using (id))"

# These fill an empty file, each in its own transaction.
LOAD = (
    f"""
    insert into annotations by name
    select a.* replace (l.id as text_id), l.dataset,
           case when c.id is null then '{Role.ANNOTATOR}' else '{Role.ADJUDICATOR}' end as role
    from new_answers a left join new_copies c on c.id = a.text_id
         join new_labels l on l.id = coalesce(c.text_id, a.text_id)
    """,  # noqa: S608
    # Pages and filters by time skip the row groups that hold other times.
    f"""
    insert into items by name
    {derive(_JOINED, "annotations", "labelled_at, id desc")}
    """,
    "insert into tombstones by name from new_tombstones",
    *FINISH,
)

# How many texts may change for the index to be used. DuckDB uses it for a list of values with up to 2048 rows, and
# never for a join.
FEW = 500

# Existing rows are updated in place: deleting from an index costs forty times as much, and the rows keep their
# order by time. `{items}` and `{annotations}` limit a statement to the texts that changed; see `merge`.
_WITHDRAW = (
    "delete from items using new_tombstones n where items.id = n.id and {items}",
    "delete from annotations using new_tombstones n where annotations.text_id = n.id and {annotations}",
)
_CHANGING = [*(name for name, column in STORED.items() if column.origin.changes), "annotators", "document"]
# Runs before `merge`.
DERIVE = f"create or replace temp table new_items as {derive('new_items', 'new_annotations')}"
_MERGE = (
    # Withdrawn and labelled again, maybe within this window: it moves to its new time.
    """
    delete from items using new_items n where items.id = n.id and items.labelled_at <> n.labelled_at and {items}
    """,
    f"""
    update items set {", ".join(f"{name} = n.{name}" for name in _CHANGING)}
    from new_items n where items.id = n.id and {{items}}
    """,  # noqa: S608
    """
    insert into items by name
    select * from new_items n where not exists (from items where items.id = n.id and {items})
    order by labelled_at, id desc
    """,
    """
    delete from annotations using new_items n
    where annotations.text_id = n.id and annotations.id not in (select id from new_annotations) and {annotations}
    """,
    """
    update annotations set annotator = n.annotator, value = n.value, status = n.status, updated_at = n.updated_at
    from new_annotations n where annotations.id = n.id and {annotations}
    """,
    """
    insert into annotations by name
    select * from new_annotations n
    where not exists (from annotations where annotations.id = n.id and {annotations})
    """,
    f"delete from tombstones where id in ({CHANGED})",  # noqa: S608
    "insert into tombstones by name from new_tombstones",
)


def merge(changed: int, withdrawn: int) -> list[tuple[str, bool]]:
    """Return the statements that apply a window with `changed` texts, of which `withdrawn` lost their label.

    Each comes with whether it takes the ids of all changed texts as its values. Few texts are found by the index,
    in a time that hardly depends on the size of the tables. For many, a scan of the indexed column is faster.
    """
    ids = ", ".join(f"${number}" for number in range(1, changed + 1))
    few = changed <= FEW
    items = f"items.id in ({ids})" if few else "true"
    annotations = f"annotations.text_id in ({ids})" if few else "true"
    statements = (
        *(_take_away(table) for table in _TOTALS),
        *(_WITHDRAW if withdrawn else ()),
        *_MERGE,
        *(statement for table in _TOTALS for statement in (_add(table), *_replace(table))),
        *_MERGE_RECENT,
    )
    return [(one.format(items=items, annotations=annotations), few and "{" in one) for one in statements]


def list_new_answers(changed: int) -> str | None:
    """Return the query for the time of the newest answer to each text with a new answer; run it before `merge`.

    It takes the ids of all changed texts. None if there are too many of them to use the index.
    """
    if not 0 < changed <= FEW:
        return None
    ids = ", ".join(f"${number}" for number in range(1, changed + 1))
    return f"""
        select max(updated_at) from new_annotations n
        where not exists (
            from annotations a where a.id = n.id and a.updated_at >= n.updated_at and a.text_id in ({ids})
        )
        group by text_id
    """  # noqa: S608


# The highest stamp received. Unlike the end of the window it does not change while no label changes.
VERSION = """
    select coalesce(max(version), 0)
    from (select version from new_items union all select version from new_tombstones)
"""
# Deleted rows stay in the file, unreadable, until the file is rebuilt.
FORGOTTEN = "select coalesce(max(version), 0) from tombstones where forgotten"
BUILT_VERSION = """
    select coalesce(max(version), 0) from (select version from items union all select version from tombstones)
"""


def trim_recent(rows: int) -> tuple[str, ...]:
    """Return the statements that remove the older half of `recent_items` if it has more than `RECENT_MAX` rows."""
    if rows <= RECENT_MAX:
        return ()
    return (
        f"""
        update recent_from
        set version = (select version from recent_items order by version desc limit 1 offset {RECENT_KEPT})
        """,  # noqa: S608 - a constant
        "delete from recent_items where version <= (select version from recent_from)",
    )
