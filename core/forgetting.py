"""Forgets texts, and keeps track of which steps of a request are open and which take too long."""

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Row, bindparam, text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.types import Uuid

from core.change_feed import STAMP, wake_readers
from core.near_duplicates import ASKED, LOCK_TWINS, RELEASE_TWINS
from core.text_identity import normalise, text_id

OVERDUE = "forgetting_overdue"

# What is wrong while a step is open, and what to do.
STEPS = {
    "imports": "the body of an import may still hold it; let the import end, or delete it (`GET /imports`)",
    "argilla": "Argilla may still have it: no uploader works on the dataset, or Argilla keeps it "
    "(`annotate forget --list` shows why)",
    "replica": "it is not confirmed that the replica's files are free of it (`annotate status` checks)",
    "snapshots": "it is not confirmed that all snapshots are free of it "
    "(`annotate forget --rewrite-snapshots` removes it)",
}

# Whether a step is open, in `forget_requests`.
IS_OPEN = {
    "imports": "imports_at is null",
    "argilla": "(argilla_at is null or argilla_note is not null)",
    "replica": "(was_labelled and replica_at is null)",
    "snapshots": "(was_labelled and snapshots_at is null)",
}

IS_UNFINISHED = f"(lifted_at is null and ({' or '.join(IS_OPEN.values())}))"

_COUNTS = ", ".join(f"count(*) filter (where {is_open}) as {step}" for step, is_open in IS_OPEN.items())

# `older_than_seconds`: 0 for all that are not finished.
UNFINISHED = text(f"""
select dataset, count(*) as requests, min(requested_at) as since,
    extract(epoch from now() - min(requested_at))::float8 as age_seconds, {_COUNTS}
from forget_requests
where {IS_UNFINISHED} and requested_at <= now() - make_interval(secs => :older_than_seconds)
group by dataset order by dataset
""")  # noqa: S608 - constants only


@dataclass(frozen=True, slots=True)
class Unfinished:
    """The forget requests of a dataset that are not finished."""

    dataset: str
    since: datetime  # when the oldest was made
    age_seconds: float
    reason: str  # for people: what is open, and what to do


def read_unfinished(row: Row[Any]) -> Unfinished:
    """Return what a row of `UNFINISHED` tells."""
    requests = "A forget request is" if row.requests == 1 else f"{row.requests:,} forget requests are"
    reason = f"{requests} not finished: {name_steps(row)}."
    return Unfinished(row.dataset, row.since, row.age_seconds, reason)


def name_steps(row: Row[Any]) -> str:
    """Return what is open, from a row with a column for each step."""
    return "; ".join(words for step, words in STEPS.items() if getattr(row, step))


_FETCHED = 100

# No index helps. A row without fields is read where its detail may quote a label or the names of its fields.
#
# The option belongs to the statement. On the connection it would turn later statements into cursors, too.
_FIND_REJECTS = text("""
select import_id, row, cast(fields as text) as fields from import_rejects
where fields is not null
    or detail <> :blanked and (detail like '%/metadata/%' or code in ('extra_forbidden', 'unknown_label'))
""").execution_options(yield_per=_FETCHED)

_BLANK_REJECT = text("""
update import_rejects set fields = null, detail = :detail where import_id = :import_id and row = :row
""")
_REJECT_DETAIL = "The row held a text that was forgotten since."

_FIND_PROBLEMS = text("select id, problem from imports where problem is not null order by id")
_BLANK_PROBLEM = text("update imports set problem = cast(:problem as json) where id = :id")
_PROBLEM_DETAIL = "A text was forgotten since. The details were deleted, because they may have quoted it."
_PROBLEM_FIELDS = ("type", "title", "status", "code")
# Problems that quote the file: its column names, for example. A CSV without a header has texts in their place.
_QUOTING = {
    "unknown_column",
    "duplicate_column",
    "wrong_column_type",
    "too_much_metadata",
    "malformed_csv",
    "malformed_parquet",
    "malformed_xlsx",
}

# Older releases stored a rejected JSON row as the repr of an object, in which no text can be looked up.
_OLD_REPR = "QuickSubmission("

_FORGET_REJECT_VALUES = text("analyze import_rejects (detail, fields)")


def find_rejects(
    connection: Connection, datasets: Mapping[UUID, str], external_ids: Collection[str] = ()
) -> list[tuple[UUID, int]]:
    """Return the keys of rejected rows that hold one of these texts, given by id, or one of the external ids.

    Reads the whole table. Rows in which texts cannot be looked up are returned, too.
    """
    names = set(datasets.values())

    def holds(word: str) -> bool:
        return word in external_ids or any(text_id(name, normalise(word)) in datasets for name in names)

    return [
        (row.import_id, row.row)
        for row in connection.execute(_FIND_REJECTS, {"blanked": _REJECT_DETAIL})
        if row.fields is None or row.fields.startswith(f'"{_OLD_REPR}') or any(map(holds, _words(row.fields)))
    ]


def _words(fields: str) -> Iterator[str]:
    """Yield all strings within JSON, names included, and numbers as they were written."""
    found = [json.loads(fields, parse_int=str, parse_float=str)]
    while found:
        match found.pop():
            case dict() as value:
                found += [*value, *value.values()]
            case list() as value:
                found += value
            case str() as value:
                # A lone surrogate has no bytes to compute an id from; no stored text holds one.
                yield value.encode(errors="replace").decode()


def blank_rejects(connection: Connection, keys: Sequence[tuple[UUID, int]]) -> None:
    """Take the fields out of rejected rows; that they were rejected stays."""
    if keys:
        values = [{"import_id": import_id, "row": row, "detail": _REJECT_DETAIL} for import_id, row in keys]
        connection.execute(_BLANK_REJECT, values)


def blank_problems(connection: Connection) -> None:
    """Delete the details of failed imports' problems that quote their files: they may quote a forgotten text."""
    for row in connection.execute(_FIND_PROBLEMS).all():
        if row.problem.get("code") in _QUOTING and row.problem.get("detail") != _PROBLEM_DETAIL:
            kept = {name: row.problem[name] for name in _PROBLEM_FIELDS if name in row.problem}
            problem = json.dumps(kept | {"detail": _PROBLEM_DETAIL})
            connection.execute(_BLANK_PROBLEM, {"id": row.id, "problem": problem})


def forget_rejected_values(connection: Connection) -> None:
    """Have Postgres sample the rejected rows anew: its statistics hold values of rows that were blanked."""
    connection.execute(_FORGET_REJECT_VALUES)


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
set status = 'forgotten', text = '', claimed_label = null, score = null, model_score = null, source = null,
    external_id = null, metadata = '{}', enrichment = '{}', received_at = now(), attempts = 0, retry_at = null,
    lease_owner = null, lease_until = null, uploaded_at = null, completed_at = null, page_position = null,
    gold_label = null, last_error = null
where id = any(:ids)
""").bindparams(_IDS)

# Not its links in near_duplicates, two ids and a number: which split its twins are in follows from them.
_DELETE = [
    text(f"delete from {table} where text_id = any(:ids)").bindparams(_IDS)  # noqa: S608 - a constant
    for table in ("annotations", "rereads", "predictions")
]

_DELETE_BAND = text("delete from near_duplicate_bands where band = :band and place = :place")

# Stamped even if the label was withdrawn before: so the change feed reports to the replicas that it is forgotten.
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

# Only when no upload is in flight: a late response could be attributed to the new record.
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
    if row.status == "demo":
        return False
    return row.status not in {"pending", "near_duplicate"} or row.attempts > 0 or row.page_position is not None


def lift(connection: Connection, ids: Sequence[UUID]) -> list[UUID]:
    """Let texts be sent again that were forgotten everywhere; returns which."""
    return list(connection.scalars(_LIFT, {"ids": list(ids)}))


# The label's row, a tombstone, tells the version in which the text was forgotten.
_SEE_REPLICA = text("""
update forget_requests set replica_at = now()
from labels
where labels.text_id = forget_requests.text_id and was_labelled and replica_at is null
    and cast(cast(labels.changed_xid as text) as bigint) < :traceless_below
""")
_SEE_SNAPSHOTS = text("""
update forget_requests
set snapshots_at = case when coalesce(copy_of, forget_requests.text_id) = any(:ids) then null
    else coalesce(snapshots_at, now()) end
from labels
where labels.text_id = forget_requests.text_id and was_labelled
    and cast(cast(labels.changed_xid as text) as bigint) <= :version
""").bindparams(_IDS)

_WAITS_FOR_FILES = text(f"""
select exists(
    select from forget_requests where lifted_at is null and ({IS_OPEN["replica"]} or {IS_OPEN["snapshots"]})
)
""")  # noqa: S608 - constants only


def waits_for_files(connection: Connection) -> bool:
    """Whether a request waits for the replica's files or for snapshots."""
    return bool(connection.scalar(_WAITS_FOR_FILES))


def store_files_seen(connection: Connection, seen: Mapping[str, Any]) -> None:
    """Store which texts the serving API's files hold no more; `seen` is the answer of its GET /forgotten."""
    connection.execute(_SEE_REPLICA, {"traceless_below": seen["traceless_below"]})
    ids = [UUID(id_) for snapshot in seen["snapshots"] for id_ in snapshot["ids"]]
    connection.execute(_SEE_SNAPSHOTS, {"ids": ids, "version": seen["version"]})
