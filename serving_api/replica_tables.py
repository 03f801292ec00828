"""The replica's tables, and the statements that bring a window of the change feed into them."""

from enum import StrEnum

from serving_api import recent_items

# Goes up with every change of a table here: a file of another layout is built anew.
LAYOUT = 4


class Role(StrEnum):
    """Whose annotation it is."""

    ANNOTATOR = "annotator"
    ADJUDICATOR = "adjudicator"  # asked about a dispute: decides it, and is not counted among its votes


TABLES = {
    "items": """
        id uuid not null, dataset varchar not null, text varchar not null, label varchar, status varchar not null,
        agreement double, votes varchar not null, annotations integer not null, confidence double,
        rule varchar not null, rule_version integer not null, decided_by varchar not null, gold_label varchar,
        source varchar, external_id varchar, claimed_label varchar, score double, metadata varchar not null,
        enrichment varchar not null, language varchar, received_at timestamp not null,
        labelled_at timestamp not null, version bigint not null
    """,
    "annotations": """
        id uuid not null, text_id uuid not null, dataset varchar not null, role varchar not null,
        annotator varchar not null, value varchar, status varchar not null, created_at timestamp not null,
        updated_at timestamp not null
    """,
    "tombstones": "id uuid not null, dataset varchar not null, version bigint not null",
    "api_keys": "hash blob not null, scopes varchar[] not null",
    "layout": "number integer not null",
    "state": """
        identity varchar not null, cursor bigint not null, version bigint not null,
        read_at timestamp not null
    """,
}
TABLES |= {"recent_items": TABLES["items"], "recent_from": "version bigint not null"}

# What a build replaces.
BUILT = ("items", "annotations", "tombstones", "recent_items", "recent_from", "state")


def stage(table: str) -> str:
    """Return the statement that makes an empty temporary table for what is new in `table`."""
    return f"create or replace temp table new_{table} as select * from {table} where false"  # noqa: S608


def receive(table: str) -> str:
    """Return the statement that adds the Arrow table `incoming` to what is new in `table`."""
    return f"insert into new_{table} by name select * from incoming"  # noqa: S608


LOAD = (
    # Pages and filters by time skip the row groups that hold other times.
    "insert into items select * from new_items order by labelled_at, id desc",
    "insert into annotations select * from new_annotations",
    "insert into tombstones select * from new_tombstones",
    # Not unique: DuckDB checks uniqueness too early to delete and insert a key in one transaction. That there is
    # one row an id follows from the statements below.
    "create index items_id on items (id)",
    "create index annotations_text_id on annotations (text_id)",
    *recent_items.LOAD,
)

# Rows that exist are updated in place: deleting from an index costs forty times as much, and a row that stays
# where it is keeps the order by time. Each statement compares one column: DuckDB reads just that in full.
MERGE = (
    "delete from items using new_tombstones n where items.id = n.id",
    # Withdrawn and labelled again, maybe within this window: it moves to its new time.
    "delete from items using new_items n where items.id = n.id and items.labelled_at <> n.labelled_at",
    """
    update items set label = n.label, status = n.status, agreement = n.agreement, votes = n.votes,
        annotations = n.annotations, confidence = n.confidence, rule = n.rule, rule_version = n.rule_version,
        decided_by = n.decided_by, gold_label = n.gold_label, version = n.version
    from new_items n where items.id = n.id
    """,
    """
    insert into items select * from new_items n where not exists (from items i where i.id = n.id)
    order by labelled_at, id desc
    """,
    "delete from annotations using new_tombstones n where annotations.text_id = n.id",
    """
    delete from annotations using new_items n
    where annotations.text_id = n.id and annotations.id not in (select id from new_annotations)
    """,
    """
    update annotations set annotator = n.annotator, value = n.value, status = n.status, updated_at = n.updated_at
    from new_annotations n where annotations.id = n.id
    """,
    """
    insert into annotations select * from new_annotations n
    where not exists (from annotations a where a.id = n.id)
    """,
    "delete from tombstones where id in (select id from new_items) or id in (select id from new_tombstones)",
    "insert into tombstones select * from new_tombstones",
    *recent_items.MERGE,
)

# The highest stamp received. Unlike the end of the window it stands still while no label changes.
VERSION = """
    select coalesce(max(version), 0)
    from (select version from new_items union all select version from new_tombstones)
"""
