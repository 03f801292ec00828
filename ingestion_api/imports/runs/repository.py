"""The queries of running imports: claims, the counts and rejects of each batch, and clearing up."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

import psycopg
from sqlalchemy import RowMapping, text
from sqlalchemy.ext.asyncio import AsyncEngine

from core.web.problems import Problem
from ingestion_api.bulk.store import Counts
from ingestion_api.imports.runs.rejects import StoredReject, to_storable


@dataclass(frozen=True, slots=True)
class Claim:
    """A claimed import, in values that can be pickled. `owner` fences its queries."""

    id: UUID
    owner: UUID
    media_type: str
    encoding: str
    parameters: dict[str, str]
    length: int
    last_row: int
    counts: Counts
    rejects_kept: int
    reject_bytes: int
    crashes: int
    datasets: frozenset[str] | None  # that its rows may name; None: all


_STEP_CHUNKS = 32
_STEP_REJECTS = 10_000

# waiting -> running: claimed. running -> running: taken over from a process that is gone or frozen.
# Clients take turns: first comes the one whose last import was started the longest ago.
_CLAIM = text("""
    with open as (
        select id, coalesce(client, '') as client, sequence from imports
        where has_body and (state = 'waiting' or (state = 'running' and lease_until < now()))
    ), turns as (
        select client, (select max(started_at) from imports where imports.client = clients.client) as last_start
        from (select distinct client from open) as clients
    ), next as (
        select imports.id, imports.state
        from open join turns using (client) join imports using (id)
        where imports.state = 'waiting' or (imports.state = 'running' and imports.lease_until < now())
        order by turns.last_start nulls first, open.sequence limit 1
        for update of imports skip locked
    )
    update imports
    set state = 'running', lease_owner = :owner, lease_until = now() + make_interval(secs => :lease_seconds),
        started_at = coalesce(started_at, now()), crashes = crashes + (next.state = 'running')::int
    from next where imports.id = next.id
    returning imports.*
""")

# running -> running: still at work.
_RENEW = text("""
    update imports set lease_until = now() + make_interval(secs => :lease_seconds)
    where id = :id and lease_owner = :owner and state = 'running'
""")

# running -> waiting: put back.
_RELEASE = text("""
    update imports
    set state = 'waiting', lease_owner = null, lease_until = null, crashes = crashes + cast(:crashed as int)
    where id = :id and lease_owner = :owner and state = 'running'
""")

# running -> failed: it crashed its process several times, or made no progress.
_GIVE_UP = text("""
    update imports
    set state = 'failed', problem = cast(:problem as json), finished_at = now(),
        lease_owner = null, lease_until = null
    where id = :id and lease_owner = :owner and state = 'running'
""")

# receiving -> failed: the client has not continued the upload in time.
_EXPIRE = text("""
    update imports set state = 'failed', problem = cast(:problem as json), finished_at = now()
    where has_body and state = 'receiving' and active_at < now() - make_interval(secs => :seconds)
""")

_ENDED_WITH_BODY = text("""
    select id from imports where has_body and state in ('done', 'failed', 'deleted')
    order by sequence limit 1 for update skip locked
""")
_DROP_CHUNKS = text("""
    delete from import_chunks where import_id = :id and "offset" in (
        select "offset" from import_chunks where import_id = :id order by "offset" limit :limit
    )
""")
_BODY_DROPPED = text("update imports set has_body = false where id = :id")

_OLD = text("""
    select id from imports
    where not has_body and (state = 'deleted' or finished_at < now() - make_interval(secs => :seconds))
    order by finished_at limit 1 for update skip locked
""")
_DROP_REJECTS = text("""
    delete from import_rejects where import_id = :id and "row" in (
        select "row" from import_rejects where import_id = :id order by "row" limit :limit
    )
""")
_DROP_IMPORT = text("delete from imports where id = :id")


async def claim_import(engine: AsyncEngine, lease_seconds: float) -> Claim | None:
    """Claim an import that waits, or whose process is gone: the oldest one of the client whose turn it is."""
    values = {"owner": uuid4(), "lease_seconds": lease_seconds}
    async with engine.begin() as connection:
        row = (await connection.execute(_CLAIM, values)).mappings().one_or_none()
    return None if row is None else _claim(row)


def _claim(row: RowMapping) -> Claim:
    return Claim(
        id=row["id"],
        owner=row["lease_owner"],
        media_type=row["media_type"],
        encoding=row["encoding"],
        parameters=row["parameters"],
        length=row["upload_offset"],
        last_row=row["last_row"],
        counts=Counts(row["received"], row["accepted"], row["duplicates"], row["rejected"]),
        rejects_kept=row["rejects_kept"],
        reject_bytes=row["reject_bytes"],
        crashes=row["crashes"],
        datasets=None if row["datasets"] is None else frozenset(row["datasets"]),
    )


async def renew_claim(engine: AsyncEngine, claim: Claim, lease_seconds: float) -> bool:
    """Keep a claim for longer; False if it is lost."""
    values = {"id": claim.id, "owner": claim.owner, "lease_seconds": lease_seconds}
    async with engine.begin() as connection:
        return (await connection.execute(_RENEW, values)).rowcount == 1


async def release_claim(engine: AsyncEngine, claim: Claim, *, crashed: bool) -> None:
    """Release an import, so that this or another process can continue it."""
    async with engine.begin() as connection:
        await connection.execute(_RELEASE, {"id": claim.id, "owner": claim.owner, "crashed": crashed})


async def give_up(engine: AsyncEngine, claim: Claim, problem: Problem) -> None:
    """End an import that cannot be run."""
    values = {"id": claim.id, "owner": claim.owner, "problem": json.dumps(to_storable(problem.as_dict()))}
    async with engine.begin() as connection:
        await connection.execute(_GIVE_UP, values)


async def expire_uploads(engine: AsyncEngine, seconds: float, problem: Problem) -> int:
    """End the imports whose body has not grown for `seconds`; returns how many."""
    async with engine.begin() as connection:
        values = {"seconds": seconds, "problem": json.dumps(to_storable(problem.as_dict()))}
        return (await connection.execute(_EXPIRE, values)).rowcount


async def drop_bodies(engine: AsyncEngine) -> bool:
    """Delete a bounded part of a body that is no longer needed; False if there is none."""
    async with engine.begin() as connection:
        id_ = (await connection.execute(_ENDED_WITH_BODY)).scalar()
        if id_ is None:
            return False
        if await _delete(connection.execute(_DROP_CHUNKS, {"id": id_, "limit": _STEP_CHUNKS})) < _STEP_CHUNKS:
            await connection.execute(_BODY_DROPPED, {"id": id_})
    return True


async def drop_old(engine: AsyncEngine, seconds: float) -> bool:
    """Delete a bounded part of an import that ended over `seconds` ago; False if there is none."""
    async with engine.begin() as connection:
        id_: UUID | None = (await connection.execute(_OLD, {"seconds": seconds})).scalar()
        if id_ is None:
            return False
        if await _delete(connection.execute(_DROP_REJECTS, {"id": id_, "limit": _STEP_REJECTS})) < _STEP_REJECTS:
            await connection.execute(_DROP_IMPORT, {"id": id_})
    return True


async def _delete(execution: Any) -> int:
    count: int = (await execution).rowcount
    return count


_CHUNK = 'select data from import_chunks where import_id = %s and "offset" = %s'

# running -> running: a batch is stored with its counts, and the claim renewed.
_RECORD = """
    update imports
    set last_row = greatest(last_row, %(last_row)s), received = %(received)s, accepted = %(accepted)s,
        duplicates = %(duplicates)s, rejected = %(rejected)s, bytes_read = %(bytes_read)s,
        rejects_kept = %(rejects_kept)s, reject_bytes = %(reject_bytes)s,
        crashes = case when %(is_progress)s then 0 else crashes end,
        lease_until = now() + make_interval(secs => %(lease_seconds)s)
    where id = %(id)s and lease_owner = %(owner)s and state = 'running'
"""

_REJECTS = 'copy import_rejects (import_id, "row", code, detail, fields) from stdin'

# running -> done, failed
_END = """
    update imports
    set state = %s, problem = %s::json, finished_at = now(), lease_owner = null, lease_until = null
    where id = %s and lease_owner = %s and state = 'running'
"""

_FORGET = """
    update imports set last_row = 0, received = 0, rejected = 0, bytes_read = 0, rejects_kept = 0, reject_bytes = 0
    where id = %s and lease_owner = %s and state = 'running'
"""
_FORGET_REJECTS = "delete from import_rejects where import_id = %s"


def read_chunk(connection: psycopg.Connection, id_: UUID, offset: int) -> bytes | None:
    """Return the piece of the body that begins at `offset`."""
    row = connection.execute(_CHUNK, [id_, offset], binary=True).fetchone()
    return row[0] if row else None


def record(cursor: psycopg.Cursor[Any], values: dict[str, Any]) -> bool:
    """Store the counts up to a batch; False if the claim is lost."""
    return cursor.execute(_RECORD, values).rowcount == 1


def add_rejects(cursor: psycopg.Cursor[Any], id_: UUID, rejects: Iterable[StoredReject]) -> None:
    """Store rejected rows."""
    with cursor.copy(_REJECTS) as copy:
        for row, code, detail, fields in rejects:
            copy.write_row((id_, row, to_storable(code), to_storable(detail), fields))


def start_anew(connection: psycopg.Connection, id_: UUID, owner: UUID) -> None:
    """Forget what an earlier run has counted without storing it."""
    if connection.execute(_FORGET, [id_, owner]).rowcount:
        connection.execute(_FORGET_REJECTS, [id_])
    connection.commit()


def finish(cursor: psycopg.Cursor[Any], id_: UUID, owner: UUID) -> None:
    """Mark an import as done; an import that has ended is not changed."""
    cursor.execute(_END, ["done", None, id_, owner])


def fail(connection: psycopg.Connection, id_: UUID, owner: UUID, problem: dict[str, Any]) -> None:
    """Mark an import as failed, with the reason."""
    connection.execute(_END, ["failed", json.dumps(to_storable(problem)), id_, owner])
    connection.commit()
