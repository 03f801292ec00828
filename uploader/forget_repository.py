"""The queries about forgotten texts and what Argilla has of them. The caller holds the transaction."""

from collections.abc import Mapping, Sequence
from uuid import UUID

from sqlalchemy import bindparam, text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.types import Text, Uuid

_OPEN = text("""
select text_id from forget_requests where dataset = :dataset and argilla_at is null order by text_id
""")

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


async def list_open(connection: AsyncConnection, dataset: str) -> list[UUID]:
    """Return the forgotten texts that may still be in Argilla, or get there."""
    return list((await connection.scalars(_OPEN, {"dataset": dataset})).all())


async def list_all(connection: AsyncConnection, dataset: str) -> list[UUID]:
    """Return all texts of a dataset that are to stay forgotten."""
    return list((await connection.scalars(_ALL, {"dataset": dataset})).all())


async def note_removed(
    connection: AsyncConnection, ids: Sequence[UUID], left: Mapping[UUID, str], watch_seconds: float
) -> list[UUID]:
    """Note what Argilla was just seen without, and what is left of others; return those that are done with."""
    notes = [left.get(id_) for id_ in ids]
    rows = await connection.execute(_REMOVED, {"ids": list(ids), "notes": notes, "watch_seconds": watch_seconds})
    return [row.text_id for row in rows if row.is_done]


async def list_without_bodies(connection: AsyncConnection, dataset: str) -> list[UUID]:
    """Return the forgotten texts that no body of an import holds any more, where that is not noted yet."""
    return list((await connection.scalars(_WITHOUT_BODIES, {"dataset": dataset})).all())


async def note_imports(connection: AsyncConnection, ids: Sequence[UUID]) -> None:
    """Note that no import holds these texts any more."""
    await connection.execute(_IMPORTS, {"ids": list(ids)})
