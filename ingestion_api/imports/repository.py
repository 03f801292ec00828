"""Every query of imports: of the endpoints, and of the processes that run them."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import psycopg
from sqlalchemy import ColumnElement, RowMapping, TextClause, Update, func, insert, or_, select, text, update
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from core.models import Import, ImportChunk, ImportState
from core.web.keys import allowed_datasets
from core.web.problems import NotFound, Problem
from ingestion_api.bulk.batches import BulkUpload, to_storable
from ingestion_api.bulk.store import Counts

_REASONS = text("""
    select code, detail, count(*) as count, (array_agg("row" order by "row"))[1:5] as rows
    from import_rejects where import_id = :id
    group by code, detail order by count(*) desc, min("row") limit 20
""")

_LIST_REJECTS = text("""
    select "row", code, detail, cast(fields as text) as fields
    from import_rejects where import_id = :id and "row" > :after_row
    order by "row" limit :limit
""")

_NO_LEASE: dict[str, Any] = {"lease_owner": None, "lease_until": None}

_COUNT_BODIES = text("""
    select count(*) filter (where state in ('receiving', 'waiting', 'running')), coalesce(sum(upload_offset), 0)
    from imports where client = :client and has_body
""")


def _visible() -> ColumnElement[bool]:
    """Return the condition of the imports that the request's key may see.

    Each row of an import may name another dataset than the parameter. So a limited key sees only the imports that
    were limited to the key's datasets when they were created.
    """
    shown = Import.state != ImportState.DELETED
    allowed = allowed_datasets()
    return shown if allowed is None else shown & Import.datasets.contained_by(sorted(allowed))


async def create_import(connection: AsyncConnection, client: str, upload: BulkUpload, length: int | None) -> UUID:
    """Make an import that waits for its body; returns its id. `length`: bytes of the body, if known."""
    statement = insert(Import).values(
        id=uuid4(),
        client=client,
        media_type=upload.media_type,
        encoding=upload.encoding,
        parameters=upload.parameters.model_dump(exclude_none=True),
        upload_length=length,
        datasets=None if upload.allowed is None else sorted(upload.allowed),
    )
    return (await connection.execute(statement.returning(Import.id))).scalar_one()  # -> receiving


async def lock_client(connection: AsyncConnection, client: str) -> None:
    """Let the client's other requests for new imports wait until the transaction ends."""
    await connection.execute(select(func.pg_advisory_xact_lock(func.hashtextextended(f"imports of {client}", 0))))


async def count_bodies(connection: AsyncConnection, client: str) -> tuple[int, int]:
    """Return how many of the client's imports have not ended, and how many bytes the bodies of all take."""
    unfinished, size = (await connection.execute(_COUNT_BODIES, {"client": client})).one()
    return unfinished, int(size)


async def get_import(connection: AsyncConnection, id_: UUID) -> RowMapping:
    """Return an import.

    Raises:
        NotFound: there is none of this id, or none any more, or the request's key may not see it.
    """
    query = select(Import.__table__, func.now().label("now")).where(Import.id == id_, _visible())
    row = (await connection.execute(query)).mappings().one_or_none()
    if row is None:
        raise NotFound(f"There is no import {id_}.")
    return row


async def list_imports(
    connection: AsyncConnection, state: str | None, before: int | None, limit: int
) -> Sequence[RowMapping]:
    """Return the newest imports, of one state or of all, that are older than the one of the sequence `before`."""
    query = select(Import.__table__, func.now().label("now")).order_by(Import.sequence.desc()).limit(limit)
    query = query.where(_visible())
    if state is not None:
        query = query.where(Import.state == state)
    if before is not None:
        query = query.where(Import.sequence < before)
    return (await connection.execute(query)).mappings().all()


async def append_chunk(
    connection: AsyncConnection, id_: UUID, offset: int, length: int | None, data: bytes
) -> bool:
    """Add a piece to the body; False if the body does not end at `offset` any more, or takes no more."""
    same_length = or_(Import.upload_length.is_(None), Import.upload_length == length)
    statement = _receiving(id_).where(Import.upload_offset == offset, same_length)
    values = {"upload_offset": offset + len(data), "upload_length": length, "active_at": func.now()}
    if not (await connection.execute(statement.values(values))).rowcount:
        return False
    await connection.execute(insert(ImportChunk).values(import_id=id_, offset=offset, data=data))
    return True


def _receiving(id_: UUID) -> Update:
    return update(Import).where(Import.id == id_, Import.state == ImportState.RECEIVING)


async def complete_upload(connection: AsyncConnection, id_: UUID, offset: int) -> bool:
    """Say that the body ends at `offset`; False if it does not, or has ended before."""
    # receiving -> waiting: the whole body is stored
    values = {"state": ImportState.WAITING, "upload_length": offset, "received_at": func.now()}
    statement = _receiving(id_).where(Import.upload_offset == offset).values(values)
    return (await connection.execute(statement)).rowcount == 1


async def fail_upload(connection: AsyncConnection, id_: UUID, problem: Problem) -> None:
    """Take no more of a body that is too long."""
    await connection.execute(_receiving(id_).values(_failed(problem)))


async def delete_import(connection: AsyncConnection, id_: UUID) -> None:
    """Hide an import, for its rows to be deleted; stops it if it has not ended.

    Raises:
        NotFound: there is none of this id, or the request's key may not see it.
    """
    statement = update(Import).where(Import.id == id_, _visible())
    # any -> deleted; the process that runs it finds its claim lost
    values = {"state": ImportState.DELETED, "finished_at": func.now()} | _NO_LEASE
    if not (await connection.execute(statement.values(values))).rowcount:
        raise NotFound(f"There is no import {id_}.")


async def list_rejects(connection: AsyncConnection, id_: UUID, after_row: int, limit: int) -> Sequence[RowMapping]:
    """Return the rejected rows behind `after_row` in their order; `fields` as JSON text."""
    values = {"id": id_, "after_row": after_row, "limit": limit}
    return (await connection.execute(_LIST_REJECTS, values)).mappings().all()


async def list_reasons(connection: AsyncConnection, id_: UUID) -> Sequence[RowMapping]:
    """Return why the rows that are kept were rejected: each reason once, the commonest first; 20 at most."""
    return (await connection.execute(_REASONS, {"id": id_})).mappings().all()


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

_ENDED_WITH_BODY = text("""
    select id from imports where has_body and state in ('done', 'failed', 'deleted')
    order by sequence limit 1 for update skip locked
""")
_BODY_DROPPED = text("update imports set has_body = false where id = :id")

_OLD = text("""
    select id from imports
    where not has_body and (state = 'deleted' or finished_at < now() - make_interval(secs => :seconds))
    order by finished_at limit 1 for update skip locked
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


def _running(claim: Claim) -> Update:
    owned = Import.id == claim.id, Import.lease_owner == claim.owner, Import.state == ImportState.RUNNING
    return update(Import).where(*owned)


async def _change(engine: AsyncEngine, statement: Update, **values: Any) -> int:
    async with engine.begin() as connection:
        return (await connection.execute(statement.values(values))).rowcount


async def renew_claim(engine: AsyncEngine, claim: Claim, lease_seconds: float) -> bool:
    """Keep a claim for longer; False if it is lost."""
    return await _change(engine, _running(claim), lease_until=func.now() + timedelta(seconds=lease_seconds)) == 1


async def release_claim(engine: AsyncEngine, claim: Claim, *, crashed: bool) -> None:
    """Release an import, so that this or another process can continue it."""
    crashes = Import.crashes + int(crashed)
    await _change(engine, _running(claim), state=ImportState.WAITING, crashes=crashes, **_NO_LEASE)


async def give_up(engine: AsyncEngine, claim: Claim, problem: Problem) -> None:
    """End an import that crashed its process several times, or made no progress."""
    await _change(engine, _running(claim), **_failed(problem), **_NO_LEASE)


async def expire_uploads(engine: AsyncEngine, seconds: float, problem: Problem) -> int:
    """End the imports whose body has not grown for `seconds`; returns how many."""
    is_old = Import.active_at < func.now() - timedelta(seconds=seconds)
    receiving = update(Import).where(Import.has_body, Import.state == ImportState.RECEIVING, is_old)
    return await _change(engine, receiving, **_failed(problem))


def _failed(problem: Problem) -> dict[str, Any]:
    return {"state": ImportState.FAILED, "problem": to_storable(problem.as_dict()), "finished_at": func.now()}


async def drop_bodies(engine: AsyncEngine) -> bool:
    """Delete a bounded part of a body that is no longer needed; False if there is none."""
    return await _drop(engine, _ENDED_WITH_BODY, {}, ("import_chunks", "offset", 32), _BODY_DROPPED)


async def drop_old(engine: AsyncEngine, seconds: float) -> bool:
    """Delete a bounded part of an import that ended over `seconds` ago; False if there is none."""
    return await _drop(engine, _OLD, {"seconds": seconds}, ("import_rejects", "row", 10_000), _DROP_IMPORT)


async def _drop(
    engine: AsyncEngine, find: TextClause, values: dict[str, Any], part: tuple[str, str, int], end: TextClause
) -> bool:
    """Drop a part (table, key, number) of the rows of the import that `find` finds, or `end` it."""
    table, key, limit = part
    first = f'select "{key}" from {table} where import_id = :id order by "{key}" limit {limit}'  # noqa: S608
    drop = text(f'delete from {table} where import_id = :id and "{key}" in ({first})')  # noqa: S608 - constants only
    async with engine.begin() as connection:
        id_ = await connection.scalar(find, values)
        if id_ is None:
            return False
        if (await connection.execute(drop, {"id": id_})).rowcount < limit:
            await connection.execute(end, {"id": id_})
    return True


StoredReject = tuple[int, str, str, str | None]  # row, code, detail, fields as JSON

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

# running -> done, failed
_END = """
    update imports
    set state = %s, problem = %s::json, finished_at = now(), lease_owner = null, lease_until = null
    where id = %s and lease_owner = %s and state = 'running'
"""

_FORGET = """
    with forgotten as (
        update imports
        set last_row = 0, received = 0, rejected = 0, bytes_read = 0, rejects_kept = 0, reject_bytes = 0
        where id = %s and lease_owner = %s and state = 'running' returning id
    )
    delete from import_rejects where import_id in (select id from forgotten)
"""


def read_chunk(connection: psycopg.Connection, id_: UUID, offset: int) -> bytes | None:
    """Return the piece of the body that begins at `offset`."""
    query = 'select data from import_chunks where import_id = %s and "offset" = %s'
    row = connection.execute(query, [id_, offset], binary=True).fetchone()
    return row[0] if row else None


def record(cursor: psycopg.Cursor[Any], values: dict[str, Any]) -> bool:
    """Store the counts up to a batch; False if the claim is lost."""
    return cursor.execute(_RECORD, values).rowcount == 1


def add_rejects(cursor: psycopg.Cursor[Any], id_: UUID, rejects: Iterable[StoredReject]) -> None:
    """Store rejected rows."""
    with cursor.copy('copy import_rejects (import_id, "row", code, detail, fields) from stdin') as copy:
        for row, code, detail, fields in rejects:
            copy.write_row((id_, row, to_storable(code), to_storable(detail), fields))


def start_anew(connection: psycopg.Connection, claim: Claim) -> None:
    """Forget what an earlier run has counted without storing it."""
    connection.execute(_FORGET, [claim.id, claim.owner])
    connection.commit()


def end(cursor: psycopg.Cursor[Any], claim: Claim, problem: dict[str, Any] | None = None) -> None:
    """Mark an import as done, or as failed for a reason; an import that has ended is not changed."""
    state = ImportState.DONE if problem is None else ImportState.FAILED
    cursor.execute(_END, [state, problem and json.dumps(to_storable(problem)), claim.id, claim.owner])
