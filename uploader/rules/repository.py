"""The queries of label rules.

The first group runs in the process that estimates, in one transaction. The second one runs in the uploader; the
caller holds the transaction.
"""

from collections.abc import Iterator
from typing import Any

import psycopg
from psycopg.rows import namedtuple_row
from sqlalchemy import Row, text
from sqlalchemy.ext.asyncio import AsyncConnection

_READ_TEXTS = 10_000

_HELD = """
select rule_version, rule_parameters, rule_answers, pg_snapshot_xmin(pg_current_snapshot())::text as seen_xid
from datasets where name = %(dataset)s
"""

# Sorted, so that an estimate depends on the answers alone.
_ANSWERS = """
select labels.text_id, labels.status, labels.label, labels.confidence, labels.rule, labels.decided_by,
    array_agg(annotations.annotator order by annotations.annotator, annotations.value) as annotators,
    array_agg(annotations.value order by annotations.annotator, annotations.value) as "values"
from labels join annotations using (text_id)
where labels.dataset = %(dataset)s and annotations.status = 'submitted' and annotations.value is not null
    and annotations.withdrawn_at is null
group by labels.text_id order by labels.text_id
"""

_STATE = text("""
select rule, rule_estimated_at, rule_seen_xid is not null as is_marked, exists (
    select from labels where labels.dataset = datasets.name and labels.changed_xid >= rule_seen_xid
) as has_moved
from datasets where name = :dataset
""")

# Without a mark until the labels are rewritten.
_STORE = text("""
update datasets set rule = :rule, rule_version = rule_version + 1, rule_parameters = cast(:parameters as jsonb),
    rule_answers = :answers, rule_estimated_at = clock_timestamp(), rule_seen_xid = null
where name = :dataset
returning rule_version
""")

_MARK = text("""
update datasets set rule_seen_xid = cast(cast(:seen_xid as text) as xid8) where name = :dataset
""")


def get_held(connection: psycopg.Connection, dataset: str) -> Any:
    """Return a dataset's last estimate, and the oldest transaction that is still running."""
    return connection.cursor(row_factory=namedtuple_row).execute(_HELD, {"dataset": dataset}).fetchone()


def read_answers(connection: psycopg.Connection, dataset: str) -> Iterator[Any]:
    """Yield each text's label with its submitted answers, in the order of the ids."""
    with connection.cursor("answers", row_factory=namedtuple_row) as cursor:
        cursor.itersize = _READ_TEXTS
        cursor.execute(_ANSWERS, {"dataset": dataset})
        yield from cursor


async def get_state(connection: AsyncConnection, dataset: str) -> Row[Any]:
    """Return the rule that was estimated last, when, and whether labels changed since its mark."""
    return (await connection.execute(_STATE, {"dataset": dataset})).one()


async def store_estimate(
    connection: AsyncConnection, dataset: str, rule: str, parameters: str | None, answers: str
) -> int:
    """Store an estimate; return its version. `parameters` is JSON, `answers` is the digest of the answers."""
    values = {"dataset": dataset, "rule": rule, "parameters": parameters, "answers": answers}
    version: int = (await connection.execute(_STORE, values)).scalar_one()
    return version


async def mark_rewritten(connection: AsyncConnection, dataset: str, seen_xid: str) -> None:
    """Store that labels changed by transactions before `seen_xid` follow from the rule."""
    await connection.execute(_MARK, {"dataset": dataset, "seen_xid": seen_xid})
