"""The queries about forgotten texts and what Argilla has of them. The caller holds the transaction."""

from collections.abc import Mapping, Sequence
from uuid import UUID

from sqlalchemy import bindparam, text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.types import Text, Uuid

from core.forgetting.repository import UNFINISHED
from core.forgetting.service import Unfinished, read_unfinished

_OPEN = text("""
select text_id, argilla_note is not null as is_kept from forget_requests
where dataset = :dataset and argilla_at is null order by text_id
""")

_OPEN_AGAIN = text("""
update forget_requests set removed_at = null, argilla_at = null where text_id = any(:ids)
""").bindparams(bindparam("ids", type_=ARRAY(Uuid)))

_ALL = text("""
select text_id from forget_requests where dataset = :dataset and lifted_at is null order by text_id
""")
_REMOVED = text("""
update forget_requests
set argilla_note = noted.note,
    removed_at = case when noted.note is null then coalesce(removed_at, clock_timestamp()) end,
    argilla_at = case
        when noted.note is null and requested_at < clock_timestamp() - make_interval(secs => :watch_seconds)
        then clock_timestamp() end
from unnest(cast(:ids as uuid[]), cast(:notes as text[])) as noted (id, note)
where text_id = noted.id and argilla_at is null
returning text_id, argilla_at is not null as is_done
""").bindparams(bindparam("ids", type_=ARRAY(Uuid)), bindparam("notes", type_=ARRAY(Text)))

_WITHOUT_BODIES = text("""
select text_id from forget_requests
where dataset = :dataset and imports_at is null
    and not exists (select from imports where has_body and sequence <= imports_until)
""")

_IMPORTS = text("update forget_requests set imports_at = clock_timestamp() where text_id = any(:ids)").bindparams(
    bindparam("ids", type_=ARRAY(Uuid))
)


async def list_open(connection: AsyncConnection, dataset: str) -> tuple[list[UUID], list[UUID]]:
    """Return the forgotten texts that may still be in Argilla, or get there; second, those that Argilla kept."""
    rows = (await connection.execute(_OPEN, {"dataset": dataset})).all()
    return [row.text_id for row in rows if not row.is_kept], [row.text_id for row in rows if row.is_kept]


async def open_again(connection: AsyncConnection, ids: Sequence[UUID]) -> None:
    """Store that Argilla has these texts again."""
    await connection.execute(_OPEN_AGAIN, {"ids": list(ids)})


async def list_all(connection: AsyncConnection, dataset: str) -> list[UUID]:
    """Return all forgotten texts of a dataset."""
    return list((await connection.scalars(_ALL, {"dataset": dataset})).all())


async def note_removed(
    connection: AsyncConnection, ids: Sequence[UUID], left: Mapping[UUID, str], watch_seconds: float
) -> list[UUID]:
    """Store which texts Argilla no longer has, and why it keeps the others; return the finished ones."""
    notes = [left.get(id_) for id_ in ids]
    rows = await connection.execute(_REMOVED, {"ids": list(ids), "notes": notes, "watch_seconds": watch_seconds})
    return [row.text_id for row in rows if row.is_done]


async def list_without_bodies(connection: AsyncConnection, dataset: str) -> list[UUID]:
    """Return the forgotten texts that no import body holds any more, and of which that is not stored yet."""
    return list((await connection.scalars(_WITHOUT_BODIES, {"dataset": dataset})).all())


async def list_unfinished(connection: AsyncConnection) -> list[Unfinished]:
    """Return the requests that are not finished, by dataset."""
    rows = await connection.execute(UNFINISHED, {"older_than_seconds": 0})
    return [read_unfinished(row) for row in rows]


async def note_imports(connection: AsyncConnection, ids: Sequence[UUID]) -> None:
    """Store that no import holds these texts any more."""
    await connection.execute(_IMPORTS, {"ids": list(ids)})
