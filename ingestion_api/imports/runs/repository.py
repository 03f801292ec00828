"""The queries of running imports: claims, the counts and rejects of each batch, and clearing up."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

import psycopg
from sqlalchemy import TextClause, text
from sqlalchemy.ext.asyncio import AsyncEngine

from core.web.problems import Problem
from ingestion_api.bulk.batches import to_storable
from ingestion_api.bulk.store import Counts


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
    if row is None:
        return None
    same = ("id", "media_type", "encoding", "parameters", "last_row", "rejects_kept", "reject_bytes", "crashes")
    return Claim(
        owner=row["lease_owner"],
        length=row["upload_offset"],
        counts=Counts(row["received"], row["accepted"], row["duplicates"], row["rejected"]),
        datasets=None if row["datasets"] is None else frozenset(row["datasets"]),
        **{name: row[name] for name in same},
    )


async def _change(engine: AsyncEngine, statement: TextClause, **values: Any) -> int:
    async with engine.begin() as connection:
        return (await connection.execute(statement, values)).rowcount


async def renew_claim(engine: AsyncEngine, claim: Claim, lease_seconds: float) -> bool:
    """Keep a claim for longer; False if it is lost."""
    return await _change(engine, _RENEW, id=claim.id, owner=claim.owner, lease_seconds=lease_seconds) == 1


async def release_claim(engine: AsyncEngine, claim: Claim, *, crashed: bool) -> None:
    """Release an import, so that this or another process can continue it."""
    await _change(engine, _RELEASE, id=claim.id, owner=claim.owner, crashed=crashed)


async def give_up(engine: AsyncEngine, claim: Claim, problem: Problem) -> None:
    """End an import that cannot be run."""
    await _change(engine, _GIVE_UP, id=claim.id, owner=claim.owner, problem=_as_json(problem.as_dict()))


async def expire_uploads(engine: AsyncEngine, seconds: float, problem: Problem) -> int:
    """End the imports whose body has not grown for `seconds`; returns how many."""
    return await _change(engine, _EXPIRE, seconds=seconds, problem=_as_json(problem.as_dict()))


def _as_json(problem: dict[str, Any]) -> str:
    return json.dumps(to_storable(problem))


async def drop_bodies(engine: AsyncEngine) -> bool:
    """Delete a bounded part of a body that is no longer needed; False if there is none."""
    return await _drop(engine, _ENDED_WITH_BODY, {}, _DROP_CHUNKS, _STEP_CHUNKS, _BODY_DROPPED)


async def drop_old(engine: AsyncEngine, seconds: float) -> bool:
    """Delete a bounded part of an import that ended over `seconds` ago; False if there is none."""
    return await _drop(engine, _OLD, {"seconds": seconds}, _DROP_REJECTS, _STEP_REJECTS, _DROP_IMPORT)


async def _drop(
    engine: AsyncEngine, find: TextClause, values: dict[str, Any], drop: TextClause, limit: int, end: TextClause
) -> bool:
    """Drop `limit` rows of the import that `find` finds; when fewer were left, `end` it."""
    async with engine.begin() as connection:
        id_ = await connection.scalar(find, values)
        if id_ is None:
            return False
        if (await connection.execute(drop, {"id": id_, "limit": limit})).rowcount < limit:
            await connection.execute(end, {"id": id_})
    return True


StoredReject = tuple[int, str, str, str | None]  # row, code, detail, fields as JSON

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
    connection.execute(_END, ["failed", _as_json(problem), id_, owner])
    connection.commit()
