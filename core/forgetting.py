"""Forgets texts: Postgres' part of it, and the notes by which the other parts do theirs.

The row of a forgotten text is emptied, and keeps its id: so the same text is not stored again, whoever sends it
and in whatever way, also by what is under way at the moment. See docs/decisions/0034-forgetting.md.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, bindparam, text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.types import Uuid

from core.change_feed import STAMP, wake_readers
from core.import_traces import blank_problems, blank_rejects, find_rejects, forget_rejected_values
from core.near_duplicates import ASKED, LOCK_TWINS, RELEASE_TWINS

_IDS = bindparam("ids", type_=ARRAY(Uuid))

# No index helps, so this reads the whole table, while nothing is locked: the bands of a text do not change.
_FIND_BANDS = text("select band, place from near_duplicate_bands where text_id = any(:ids)").bindparams(_IDS)

# In order of id, as all who lock texts.
_LOCK = text("""
select id, dataset, adjudicates, status, attempts, page_position from texts
where id = any(:ids) and status <> 'forgotten'
order by id
for update
""").bindparams(_IDS)

# any -> forgotten: on request. What is left says nothing about the text but its id.
_EMPTY = text("""
update texts
set status = 'forgotten', text = '', claimed_label = null, score = null, source = null, external_id = null,
    metadata = '{}', enrichment = '{}', received_at = now(), attempts = 0, retry_at = null, lease_owner = null,
    lease_until = null, uploaded_at = null, completed_at = null, page_position = null, gold_label = null,
    last_error = null
where id = any(:ids)
""").bindparams(_IDS)

# Not its links in near_duplicates, two ids and a number: which split its twins are in follows from them.
_DELETE = (
    text("delete from annotations where text_id = any(:ids)").bindparams(_IDS),
    text("delete from rereads where text_id = any(:ids)").bindparams(_IDS),
)

_DELETE_BAND = text("delete from near_duplicate_bands where band = :band and place = :place")

# Stamped anew also where the label was withdrawn before: the change feed tells the replicas that it is forgotten.
_WITHDRAW = text(f"""
update labels
set label = null, status = 'withdrawn', agreement = null, votes = '{{}}', annotations = 0, confidence = null,
    rule = 'majority', rule_version = 1, decided_by = 'annotators', labelled_at = now(), changed_xid = {STAMP}
where text_id = any(:ids)
returning text_id
""").bindparams(_IDS)  # noqa: S608 - a constant

# Postgres keeps some values of each column to plan by, those of rows that are gone, too, until it looks again.
_FORGET_VALUES = (
    text("analyze texts (text, claimed_label, source, external_id, metadata, enrichment, last_error)"),
    text("analyze annotations (value, answers)"),
    text("analyze near_duplicate_bands (band)"),
)

_LAST_IMPORT = text("select coalesce(max(sequence), 0) from imports where has_body")

_NOTE = text("""
insert into forget_requests
    (text_id, dataset, copy_of, requested_at, requested_by, imports_until, imports_at, removed_at, argilla_at,
     was_labelled)
values (:text_id, :dataset, :copy_of, now(), :by, :imports_until, case when :imports_until = 0 then now() end,
    case when not :was_sent then now() end, case when not :was_sent then now() end, :was_labelled)
on conflict (text_id) do update
set requested_at = excluded.requested_at, requested_by = excluded.requested_by,
    imports_until = excluded.imports_until, imports_at = excluded.imports_at, removed_at = excluded.removed_at,
    argilla_at = excluded.argilla_at, argilla_note = null,
    was_labelled = excluded.was_labelled or forget_requests.was_labelled,
    replica_at = null, snapshots_at = null, lifted_at = null
""")

# Only where nothing more is to be done: what is on its way might be taken for the new one's.
_LIFT = text("""
with lifted as (
    update forget_requests set lifted_at = now()
    where (text_id = any(:ids) or copy_of = any(:ids)) and lifted_at is null and argilla_at is not null
        and not exists (
            select from forget_requests as copy
            where copy.copy_of = forget_requests.text_id and copy.argilla_at is null
        )
    returning text_id
)
delete from texts using lifted where texts.id = lifted.text_id and texts.status = 'forgotten'
returning texts.id
""").bindparams(_IDS)


@dataclass(frozen=True, slots=True)
class Traces:
    """What else leads to some texts, beside the rows that have their ids as keys."""

    bands: Sequence[Any] = ()  # keys of near_duplicate_bands
    rejects: Sequence[tuple[UUID, int]] = field(default=())  # keys of import_rejects


def find_traces(connection: Connection, datasets: Mapping[UUID, str], external_ids: Collection[str]) -> Traces:
    """Find the bands of texts, given with their datasets, and the rejected rows that hold them or an external id.

    Reads both tables in full.
    """
    bands = connection.execute(_FIND_BANDS, {"ids": list(datasets)}).all()
    return Traces(bands, find_rejects(connection, datasets, external_ids))


def forget_texts(connection: Connection, ids: Sequence[UUID], traces: Traces, by: str) -> list[UUID]:
    """Forget texts in Postgres, in the caller's transaction, and note what is left to do; `by` asked for it.

    Returns the texts that are forgotten by this call; what was forgotten before, or is not there, is not.
    """
    connection.execute(text(LOCK_TWINS), {"ids": list(ids)})
    rows = connection.execute(_LOCK, {"ids": list(ids)}).all()
    found = {"ids": [row.id for row in rows]}
    if not rows:
        return []
    connection.execute(_EMPTY, found)
    connection.execute(text(RELEASE_TWINS), found | {"asked": list(ASKED)})
    for statement in _DELETE:
        connection.execute(statement, found)
    if traces.bands:
        connection.execute(_DELETE_BAND, [dict(band._mapping) for band in traces.bands])
    blank_rejects(connection, traces.rejects)
    blank_problems(connection)
    labelled = set(connection.scalars(_WITHDRAW, found))
    imports_until = connection.scalar(_LAST_IMPORT)
    notes = [
        {
            "text_id": row.id,
            "dataset": row.dataset,
            "copy_of": row.adjudicates,
            "by": by,
            "imports_until": imports_until,
            "was_sent": _was_sent(row),
            "was_labelled": row.id in labelled,
        }
        for row in rows
    ]
    connection.execute(_NOTE, notes)
    if labelled:
        wake_readers(connection)
    return found["ids"]


def forget_values(connection: Connection) -> None:
    """Have Postgres' statistics about the columns made anew, after texts were forgotten: they hold samples."""
    for statement in _FORGET_VALUES:
        connection.execute(statement)
    forget_rejected_values(connection)


def _was_sent(row: Any) -> bool:
    """Whether Argilla may have the text: a claim sets its position, a failure takes it away again."""
    return row.status not in {"pending", "near_duplicate"} or row.attempts > 0 or row.page_position is not None


def lift(connection: Connection, ids: Sequence[UUID]) -> list[UUID]:
    """Let texts be sent again that were forgotten everywhere; returns which."""
    return list(connection.scalars(_LIFT, {"ids": list(ids)}))
