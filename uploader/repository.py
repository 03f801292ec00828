"""SQL about texts and datasets that several jobs use."""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import psycopg
import structlog
from sqlalchemy import CursorResult, Row, TextClause, bindparam, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from core.datasets import adjudicated_by
from core.forgetting.repository import LOCK_TWINS, RELEASE_TWINS
from core.models.texts import ASKED

# uploading -> pending: the claims of a leader that is gone
_RETURN_ALL = text("""
update texts set status = 'pending', lease_owner = null, lease_until = null
where dataset = :dataset and status = 'uploading'
""")

# Only uploading texts have a `lease_owner`. With a condition on the status, the planner would read the index of
# uploading texts instead of the primary key: it has an entry for each text claimed since the oldest snapshot.

# uploading -> uploaded: annotators can see the record
_MARK_UPLOADED = text("""
update texts
set status = 'uploaded', uploaded_at = clock_timestamp(), attempts = attempts + 1,
    last_error = null, retry_at = null, lease_owner = null, lease_until = null
where id = any(:ids) and lease_owner = :claim
""")

# uploading -> failed: Argilla cannot take the text because of its content
_MARK_FAILED = text("""
update texts
set status = 'failed', last_error = reasons.words, attempts = attempts + 1, page_position = null,
    retry_at = null, lease_owner = null, lease_until = null
from unnest(cast(:ids as uuid[]), cast(:words as text[])) as reasons (id, words)
where texts.id = reasons.id and lease_owner = :claim
""")

# near_duplicate -> pending: the setting has changed; in steps, because there may be millions
_RELEASE_HELD = text("""
update texts set status = 'pending'
where id in (
    select id from texts where dataset = :dataset and status = 'near_duplicate' order by sequence limit 1000
)
""")

# uploading -> pending: nothing was decided about the text; that is no attempt
_RETURN_CLAIM = text("""
update texts
set status = 'pending', lease_owner = null, lease_until = null,
    retry_at = case when :wait_seconds > 0 then now() + make_interval(secs => :wait_seconds) end
where lease_owner = :claim and status = 'uploading'
""")

# Of the present dataset only: putting a sample of another one would create its record without its answers.
_SAMPLE = text("""
select texts.id, text from texts join datasets on datasets.name = texts.dataset
where dataset = :dataset and status = 'uploaded' and refill_position is null
limit :count
""")

_REMEMBER = text("""
insert into datasets (name, argilla_dataset_id, argilla_dataset_at) values (:name, :id, clock_timestamp())
on conflict (name) do update
set argilla_dataset_id = excluded.argilla_dataset_id,
    -- Not the time proposed: the row may have been waited for, until texts of the other dataset were finished.
    argilla_dataset_at = clock_timestamp(),
    refill_position = case when datasets.argilla_dataset_id is not null
        then cast('00000000-0000-0000-0000-000000000000' as uuid) end,
    -- What was seen of another dataset says nothing about this one.
    events_applied_at = null, activity_seen_at = null, difference_seen = null, swept_at = null,
    sweep_position = null, sweep_activity_at = null, sweep_difference = null
where datasets.argilla_dataset_id is distinct from excluded.argilla_dataset_id
""")

_SETTINGS = text("select settings as in_force, settings_approved as approved from datasets where name = :name")

_STORE_SETTINGS = text("""
update datasets set settings = :settings, settings_approved = null where name = :name
""").bindparams(bindparam("settings", type_=JSONB))

_KEEP_SETTINGS = text("""
update datasets set settings = coalesce(settings, :settings) where name = :name
""").bindparams(bindparam("settings", type_=JSONB))

# The order of sequence is nearly that of time: one look into the index instead of a sort. Gold texts wait for
# their share by design, indefinitely when that is 0: their age says nothing about the backlog.
_BACKLOG = text("""
select
    (select count(*) from texts where dataset = :dataset and status = 'pending') as pending,
    cast(coalesce((select extract(epoch from clock_timestamp() - received_at) from texts
     where dataset = :dataset and status = 'pending' and (gold_label is null or page_position is not null)
     order by sequence limit 1), 0) as float8) as oldest_pending_seconds,
    (select count(*) from texts
     where dataset = :dataset and status in ('uploading', 'uploaded') and completed_at is null) as open,
    count(*) as requests,
    cast(coalesce(extract(epoch from clock_timestamp() - min(received_at)), 0) as float8) as oldest_request_seconds
from rereads where dataset = :dataset
""")

# Held until the transaction ends, so that no text is finished for a dataset that another one has replaced.
_IS_PRESENT = text("""
select 1 from datasets where name = :dataset and coalesce(argilla_dataset_id, :id) = :id for share
""")

_LAST_ERROR_CHARACTERS = 2000


async def _change(connection: AsyncConnection, statement: TextClause, **values: Any) -> int:
    """Run a statement; return how many rows it changed."""
    result: CursorResult[Any] = await connection.execute(statement, values)
    return result.rowcount


async def release_held(connection: AsyncConnection, dataset: str) -> int:
    """Make up to 1000 suppressed near duplicates pending; return how many."""
    return await _change(connection, _RELEASE_HELD, dataset=dataset)


async def return_claims(connection: AsyncConnection, dataset: str) -> int:
    """Make every claimed text of a dataset pending again; only its leader may, before it claims any."""
    return await _change(connection, _RETURN_ALL, dataset=dataset)


async def mark_uploaded(connection: AsyncConnection, claim: UUID, ids: Sequence[UUID]) -> int:
    """Finish texts of a claim; return how many it still held."""
    return await _change(connection, _MARK_UPLOADED, claim=claim, ids=list(ids))


async def mark_failed(connection: AsyncConnection, claim: UUID, reasons: Mapping[UUID, str]) -> int:
    """Set texts of a claim aside with the reason; return how many it still held. Twins waiting for them go on."""
    if not reasons:
        return 0
    await connection.execute(LOCK_TWINS, {"ids": list(reasons)})
    words = [_storable(reason) for reason in reasons.values()]
    failed = await _change(connection, _MARK_FAILED, claim=claim, ids=list(reasons), words=words)
    await connection.execute(RELEASE_TWINS, {"ids": list(reasons), "asked": list(ASKED)})
    return failed


def _storable(words: str) -> str:
    # Argilla quotes the refused text, and Postgres takes neither NUL nor lone surrogates.
    return words[:_LAST_ERROR_CHARACTERS].replace("\0", "�").encode("utf-8", "replace").decode()


async def return_claim(connection: AsyncConnection, claim: UUID, wait_seconds: float) -> int:
    """Return the texts that a claim still holds to the queue; they are not claimed for `wait_seconds`."""
    return await _change(connection, _RETURN_CLAIM, claim=claim, wait_seconds=wait_seconds)


async def list_uploaded_samples(connection: AsyncConnection, dataset: str, count: int) -> list[tuple[UUID, str]]:
    """Return ids and texts of some uploaded texts, any of them."""
    rows = await connection.execute(_SAMPLE, {"dataset": dataset, "count": count})
    return [(row.id, row.text) for row in rows]


async def remember_dataset(connection: AsyncConnection, name: str, argilla_dataset_id: UUID) -> None:
    """Store which dataset in Argilla a dataset of the settings is."""
    await connection.execute(_REMEMBER, {"name": name, "id": argilla_dataset_id})


async def get_settings(connection: AsyncConnection, name: str) -> Row[Any] | None:
    """Return a dataset's definition `in_force`, and the `approved` one, which asks annotators for less."""
    return (await connection.execute(_SETTINGS, {"name": name})).first()


async def store_settings(
    connection: AsyncConnection, name: str, settings: dict[str, Any], *, is_held: bool
) -> None:
    """Store the definition that is in force; one of which a part is held back only where none is known yet."""
    await connection.execute(_KEEP_SETTINGS if is_held else _STORE_SETTINGS, {"name": name, "settings": settings})


async def is_present_dataset(connection: AsyncConnection, name: str, argilla_dataset_id: UUID) -> bool:
    """Whether this is still the dataset in Argilla; it stays so until the transaction ends."""
    values = {"dataset": name, "id": argilla_dataset_id}
    return (await connection.execute(_IS_PRESENT, values)).first() is not None


async def measure_backlog(connection: AsyncConnection, dataset: str) -> Row[Any]:
    """Measure what waits in a dataset; the row has `metrics.BACKLOG`'s values in their order.

    These are the number of pending texts, and the age in seconds of the oldest one that isn't unsent gold; the
    number of uploaded or claimed texts that need more answers; the number of refresh requests, and the age of the
    oldest.
    """
    return (await connection.execute(_BACKLOG, {"dataset": dataset})).one()


async def measure_database(connection: AsyncConnection) -> int:
    """Return how many bytes the database takes on disk."""
    return await connection.scalar(text("select pg_database_size(current_database())")) or 0


# Also a lease that has run out: while no other uploader has taken it, nothing has happened without this one.
_RENEW_LEASE = text("""
update datasets set leader_until = clock_timestamp() + make_interval(secs => :lease_seconds)
where name = :dataset and leader_id = :leader
""")

# If several uploaders try at the same time, one wins: the others wait for its row, and then see its lease.
_TAKE_LEASE = text("""
insert into datasets (name, leader_id, leader_until)
values (:dataset, :leader, clock_timestamp() + make_interval(secs => :lease_seconds))
on conflict (name) do update set leader_id = excluded.leader_id, leader_until = excluded.leader_until
where datasets.leader_id is null or datasets.leader_until < clock_timestamp()
""")

_RELEASE_LEASE = text("""
update datasets set leader_id = null, leader_until = null where name = :dataset and leader_id = :leader
""")

_LOCK_LEASE = text("select 1 from datasets where name = :dataset and leader_id = :leader for share")

# Two transactions that hold the row for share and then change it would wait for each other.
_LOCK_LEASE_TO_CHANGE = text("""
select 1 from datasets where name = :dataset and leader_id = :leader for no key update
""")


async def renew_lease(connection: AsyncConnection, dataset: str, leader: UUID, lease_seconds: float) -> bool:
    """Renew a leader's lease; return False if it is another one's, or free."""
    values = {"dataset": dataset, "leader": leader, "lease_seconds": lease_seconds}
    return await _change(connection, _RENEW_LEASE, **values) == 1


async def take_lease(connection: AsyncConnection, dataset: str, leader: UUID, lease_seconds: float) -> bool:
    """Take a lease that is free or has run out; return whether that was so."""
    values = {"dataset": dataset, "leader": leader, "lease_seconds": lease_seconds}
    return await _change(connection, _TAKE_LEASE, **values) == 1


async def release_lease(connection: AsyncConnection, dataset: str, leader: UUID) -> None:
    """Free the lease, if this leader holds it."""
    await connection.execute(_RELEASE_LEASE, {"dataset": dataset, "leader": leader})


async def lock_lease(connection: AsyncConnection, dataset: str, leader: UUID, *, to_change: bool) -> bool:
    """Lock the lease until the transaction ends; return whether this leader holds it.

    With `to_change` the transaction may change the dataset's row later.
    """
    statement = _LOCK_LEASE_TO_CHANGE if to_change else _LOCK_LEASE
    return (await connection.execute(statement, {"dataset": dataset, "leader": leader})).first() is not None


_CLOCK = text("select clock_timestamp()")


async def get_clock(connection: AsyncConnection) -> datetime:
    """Return Postgres' clock."""
    clock: datetime = (await connection.execute(_CLOCK)).scalar_one()
    return clock


_DELETE_OTHER_WEBHOOKS = text("delete from webhooks where id is distinct from cast(:id as uuid)")

_STORE_WEBHOOK = text("""
insert into webhooks (id, secret) values (:id, :secret)
on conflict (id) do update set secret = excluded.secret where webhooks.secret <> excluded.secret
""")


async def list_webhooks(connection: AsyncConnection) -> set[str]:
    """Return the ids of our webhooks in Argilla, as far as we know."""
    return set((await connection.scalars(text("select cast(id as text) from webhooks"))).all())


async def store_webhook(connection: AsyncConnection, webhook: tuple[str, str] | None) -> None:
    """Store the id and the secret of our only webhook, or that there is none."""
    id_, secret = webhook or (None, None)
    await connection.execute(_DELETE_OTHER_WEBHOOKS, {"id": id_})
    if webhook:
        await connection.execute(_STORE_WEBHOOK, {"id": id_, "secret": secret})


_CLEAR_ALERT = text("delete from alerts where dataset = :dataset and job = :job")

_RAISE_ALERT = text("""
insert into alerts (dataset, job, code, reason) values (:dataset, :job, :code, :reason)
on conflict (dataset, job) do update set code = excluded.code, reason = excluded.reason,
    since = case when alerts.code = excluded.code then alerts.since else now() end
""")


async def store_alerts(
    connection: AsyncConnection, dataset: str, alerts: Mapping[str, tuple[str, str] | None]
) -> None:
    """Store the alert of each job, a code and a reason, or that it has none; the same code keeps its time."""
    for job, alert in sorted(alerts.items()):
        values = {"dataset": dataset, "job": job}
        if alert is None:
            await connection.execute(_CLEAR_ALERT, values)
        else:
            code, reason = alert
            values |= {"code": code, "reason": reason.replace("\0", "\ufffd")}
            await connection.execute(_RAISE_ALERT, values)


log = structlog.get_logger()

_UNDEFINED = text("""
select name, pending, uploaded from datasets
cross join lateral (
    select count(*) as pending from texts where texts.dataset = name and texts.status = 'pending'
) as waiting
cross join lateral (
    select count(*) as uploaded from texts where texts.dataset = name and texts.status = 'uploaded'
) as shown
where name <> all(:names) and pending + uploaded > 0
order by name
""")

_HINT = "texts, answers and labels stay; define it in DATASETS_FILE again to go on"
_ADJUDICATION_HINT = (
    "dispute_extra is 0 by now: what adjudicators decided stays; new answers of theirs do not come"
)


async def warn_of_undefined(engine: AsyncEngine, names: Collection[str]) -> None:
    """Log each dataset with texts that is none of `names`; without Postgres, nothing is known of them."""
    try:
        async with engine.connect() as connection:
            rows = (await connection.execute(_UNDEFINED, {"names": list(names)})).all()
    except (SQLAlchemyError, psycopg.Error):
        return
    for row in rows:
        is_adjudication = adjudicated_by(row.name) in names
        log.warning(
            "dataset.undefined",
            dataset=row.name,
            pending=row.pending,
            uploaded=row.uploaded,
            hint=_ADJUDICATION_HINT if is_adjudication else _HINT,
        )
