"""The queries about forgotten texts. The caller holds the transaction."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, text

from core.models.labels import STAMP
from core.models.texts import ASKED, near_duplicates_lock

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

# For texts with these ids. A transaction that stores one of their twins waits, and then sees their new status.
LOCK_TWINS = text(f"""
select {near_duplicates_lock("dataset")}
from (select distinct dataset from texts where id = any(:ids) order by dataset) as names
""")  # noqa: S608 - constants only

# near_duplicate -> pending: none of the twins that annotators were to be asked for is left
RELEASE_TWINS = text("""
update texts set status = 'pending'
where status = 'near_duplicate'
    and id in (select text_id from near_duplicates where twin_id = any(:ids))
    and not exists (
        select from near_duplicates join texts as twin on twin.id = twin_id
        where text_id = texts.id and twin.status = any(:asked)
    )
""")

_FETCHED = 100
_REJECT_DETAIL = "The row held a text that was forgotten since."


def read_rejects(connection: Connection) -> Iterator[Any]:
    """Yield the rejected rows that may hold a text, with their fields as JSON.

    No index helps. A row without fields is read where its detail may quote a label or the names of its fields.
    """
    # The option belongs to the statement. On the connection it would turn later statements into cursors, too.
    statement = text("""
        select import_id, row, cast(fields as text) as fields from import_rejects
        where fields is not null
            or detail <> :blanked and (detail like '%/metadata/%' or code in ('extra_forbidden', 'unknown_label'))
    """).execution_options(yield_per=_FETCHED)
    yield from connection.execute(statement, {"blanked": _REJECT_DETAIL})


def blank_rejects(connection: Connection, keys: Sequence[tuple[UUID, int]]) -> None:
    """Delete the fields of rejected rows; that they were rejected stays."""
    if keys:
        statement = text("""
            update import_rejects set fields = null, detail = :blanked where import_id = :import_id and row = :row
        """)
        values = [{"import_id": id_, "row": row, "blanked": _REJECT_DETAIL} for id_, row in keys]
        connection.execute(statement, values)


def list_problems(connection: Connection) -> Sequence[Any]:
    """Return the problems of failed imports."""
    statement = text("select id, problem from imports where problem is not null order by id")
    return connection.execute(statement).all()


def replace_problem(connection: Connection, import_id: UUID, problem: str) -> None:
    """Replace an import's problem; `problem` is JSON."""
    statement = text("update imports set problem = cast(:problem as json) where id = :id")
    connection.execute(statement, {"id": import_id, "problem": problem})


def find_bands(connection: Connection, ids: Iterable[UUID]) -> Sequence[Any]:
    """Return the bands of texts; reads the whole table while nothing is locked: the bands of a text stay."""
    statement = text("select band, place from near_duplicate_bands where text_id = any(:ids)")
    return connection.execute(statement, {"ids": list(ids)}).all()


def lock_texts(connection: Connection, ids: Sequence[UUID]) -> Sequence[Any]:
    """Lock those of the texts that are not forgotten yet, with their near duplicates; return them."""
    connection.execute(LOCK_TWINS, {"ids": list(ids)})
    # In order of id, as all who lock texts.
    statement = text("""
        select id, dataset, adjudicates, status, attempts, page_position from texts
        where id = any(:ids) and status <> 'forgotten'
        order by id
        for update
    """)
    return connection.execute(statement, {"ids": list(ids)}).all()


def empty_texts(connection: Connection, ids: Sequence[UUID], bands: Sequence[Any]) -> None:
    """Delete what locked texts consist of, and let texts go on that wait for one of them."""
    # any -> forgotten: on request. Only the id and the dataset remain.
    empty = text("""
        update texts
        set status = 'forgotten', text = '', claimed_label = null, score = null, model_score = null, source = null,
            external_id = null, metadata = '{}', enrichment = '{}', received_at = now(), attempts = 0,
            retry_at = null, lease_owner = null, lease_until = null, uploaded_at = null, completed_at = null,
            page_position = null, gold_label = null, last_error = null
        where id = any(:ids)
    """)
    connection.execute(empty, {"ids": list(ids)})
    connection.execute(RELEASE_TWINS, {"ids": list(ids), "asked": list(ASKED)})
    # Not its links in near_duplicates, two ids and a number: which split its twins are in follows from them.
    for table in ("annotations", "rereads", "predictions"):
        delete = text(f"delete from {table} where text_id = any(:ids)")  # noqa: S608 - a constant
        connection.execute(delete, {"ids": list(ids)})
    if bands:
        delete_band = text("delete from near_duplicate_bands where band = :band and place = :place")
        connection.execute(delete_band, [dict(band._mapping) for band in bands])


def withdraw_labels(connection: Connection, ids: Sequence[UUID]) -> set[UUID]:
    """Turn the labels of texts into tombstones of the change feed; return the texts that had one."""
    # Stamped even if the label was withdrawn before: then the change feed reports to the replicas that it is gone.
    statement = text(f"""
        update labels
        set label = null, status = 'withdrawn', agreement = null, votes = '{{}}', annotations = 0,
            confidence = null, rule = 'majority', rule_version = 1, decided_by = 'annotators', labelled_at = now(),
            changed_xid = {STAMP}
        where text_id = any(:ids)
        returning text_id
    """)  # noqa: S608 - a constant
    return set(connection.scalars(statement, {"ids": list(ids)}))


def get_last_import(connection: Connection) -> int:
    """Return the sequence of the newest import with a body; 0 without one."""
    return connection.scalar(text("select coalesce(max(sequence), 0) from imports where has_body")) or 0


def store_requests(connection: Connection, requests: Sequence[Mapping[str, Any]]) -> None:
    """Store forget requests; one of a text that was forgotten before begins again."""
    statement = text("""
        insert into forget_requests
            (text_id, dataset, copy_of, requested_at, requested_by, imports_until, imports_at, removed_at,
             argilla_at, was_labelled)
        values (:text_id, :dataset, :copy_of, now(), :by, :imports_until,
            case when :imports_until = 0 then now() end, case when not :was_sent then now() end,
            case when not :was_sent then now() end, :was_labelled)
        on conflict (text_id) do update
        set requested_at = excluded.requested_at, requested_by = excluded.requested_by,
            imports_until = excluded.imports_until, imports_at = excluded.imports_at,
            removed_at = excluded.removed_at, argilla_at = excluded.argilla_at, argilla_note = null,
            was_labelled = excluded.was_labelled or forget_requests.was_labelled,
            replica_at = null, snapshots_at = null, lifted_at = null
    """)
    connection.execute(statement, list(requests))


def forget_values(connection: Connection) -> None:
    """Have Postgres analyze the tables again, after texts were forgotten.

    It keeps some values of each column to plan by, also those of rows that are gone, until it looks again.
    """
    for columns in (
        "texts (text, claimed_label, source, external_id, metadata, enrichment, last_error)",
        "annotations (value, answers)",
        "near_duplicate_bands (band)",
    ):
        connection.execute(text(f"analyze {columns}"))
    forget_rejected_values(connection)


def forget_rejected_values(connection: Connection) -> None:
    """Have Postgres analyze the rejected rows again, after rows were blanked."""
    connection.execute(text("analyze import_rejects (detail, fields)"))


def lift(connection: Connection, ids: Sequence[UUID]) -> list[UUID]:
    """Let texts be sent again that were forgotten everywhere; return them."""
    # Only when no upload is in flight: a late response could be attributed to the new record.
    statement = text("""
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
    """)
    return list(connection.scalars(statement, {"ids": list(ids)}))


def waits_for_files(connection: Connection) -> bool:
    """Whether a request waits for the replica's files or for snapshots."""
    is_open = f"{IS_OPEN['replica']} or {IS_OPEN['snapshots']}"
    statement = f"select exists(select from forget_requests where lifted_at is null and ({is_open}))"  # noqa: S608
    return bool(connection.scalar(text(statement)))


def store_files_seen(connection: Connection, seen: Mapping[str, Any]) -> None:
    """Store which texts the serving API's files no longer hold; `seen` is the response of its GET /forgotten."""
    # The stamp of the label's tombstone is the version in which the text was forgotten.
    see_replica = text("""
        update forget_requests set replica_at = now()
        from labels
        where labels.text_id = forget_requests.text_id and was_labelled and replica_at is null
            and cast(cast(labels.changed_xid as text) as bigint) < :traceless_below
    """)
    connection.execute(see_replica, {"traceless_below": seen["traceless_below"]})
    see_snapshots = text("""
        update forget_requests
        set snapshots_at = case when coalesce(copy_of, forget_requests.text_id) = any(:ids) then null
            else coalesce(snapshots_at, now()) end
        from labels
        where labels.text_id = forget_requests.text_id and was_labelled
            and cast(cast(labels.changed_xid as text) as bigint) <= :version
    """)
    ids = [UUID(id_) for snapshot in seen["snapshots"] for id_ in snapshot["ids"]]
    connection.execute(see_snapshots, {"ids": ids, "version": seen["version"]})


def list_in_argilla(connection: Connection, dataset: str) -> tuple[list[UUID], list[UUID]]:
    """Return the forgotten texts that may still be in Argilla, or get there; second, those that Argilla kept."""
    statement = text("""
        select text_id, argilla_note is not null as is_kept from forget_requests
        where dataset = :dataset and argilla_at is null order by text_id
    """)
    rows = connection.execute(statement, {"dataset": dataset}).all()
    return [row.text_id for row in rows if not row.is_kept], [row.text_id for row in rows if row.is_kept]


def open_again(connection: Connection, ids: Sequence[UUID]) -> None:
    """Store that Argilla has these texts again."""
    statement = text("update forget_requests set removed_at = null, argilla_at = null where text_id = any(:ids)")
    connection.execute(statement, {"ids": list(ids)})


def list_forgotten(connection: Connection, dataset: str) -> list[UUID]:
    """Return all forgotten texts of a dataset."""
    statement = text("""
        select text_id from forget_requests where dataset = :dataset and lifted_at is null order by text_id
    """)
    return list(connection.scalars(statement, {"dataset": dataset}))


def note_removed(
    connection: Connection, ids: Sequence[UUID], left: Mapping[UUID, str], watch_seconds: float
) -> list[UUID]:
    """Store which texts Argilla no longer has, and why it keeps the others; return the finished ones."""
    statement = text("""
        update forget_requests
        set argilla_note = noted.note,
            removed_at = case when noted.note is null then coalesce(removed_at, clock_timestamp()) end,
            argilla_at = case
                when noted.note is null
                    and requested_at < clock_timestamp() - make_interval(secs => :watch_seconds)
                then clock_timestamp() end
        from unnest(cast(:ids as uuid[]), cast(:notes as text[])) as noted (id, note)
        where text_id = noted.id and argilla_at is null
        returning text_id, argilla_at is not null as is_done
    """)
    values = {"ids": list(ids), "notes": [left.get(id_) for id_ in ids], "watch_seconds": watch_seconds}
    return [row.text_id for row in connection.execute(statement, values) if row.is_done]


def list_without_bodies(connection: Connection, dataset: str) -> list[UUID]:
    """Return the forgotten texts that no import body holds any more, and of which that is not stored yet."""
    statement = text("""
        select text_id from forget_requests
        where dataset = :dataset and imports_at is null
            and not exists (select from imports where has_body and sequence <= imports_until)
    """)
    return list(connection.scalars(statement, {"dataset": dataset}))


def note_imports(connection: Connection, ids: Sequence[UUID]) -> None:
    """Store that no import holds these texts any more."""
    statement = text("update forget_requests set imports_at = clock_timestamp() where text_id = any(:ids)")
    connection.execute(statement, {"ids": list(ids)})
