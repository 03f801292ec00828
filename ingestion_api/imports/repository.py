"""The queries of the endpoints of imports."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import ColumnElement, RowMapping, Text, Update, cast, func, insert, or_, select, text, update
from sqlalchemy.ext.asyncio import AsyncConnection

from core.models import Import, ImportChunk, ImportReject, ImportState
from core.web.keys import allowed_datasets
from core.web.problems import NotFound
from ingestion_api.bulk.batches import BulkUpload

_REASONS = text("""
    select code, detail, count(*) as count, (array_agg("row" order by "row"))[1:5] as rows
    from import_rejects where import_id = :id
    group by code, detail order by count(*) desc, min("row") limit 20
""")

_UNFINISHED = (ImportState.RECEIVING, ImportState.WAITING, ImportState.RUNNING)


def _visible() -> ColumnElement[bool]:
    """Return the condition of the imports that the request's key may see.

    Each row of an import may name another dataset than the parameter. So a limited key sees only the imports that
    were limited to the key's datasets when they were created.
    """
    shown = Import.state != ImportState.DELETED
    allowed = allowed_datasets()
    return shown if allowed is None else shown & Import.datasets.contained_by(sorted(allowed))


async def create_import(
    connection: AsyncConnection,
    client: str,
    upload: BulkUpload,
    length: int | None,
) -> UUID:
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


async def count_unfinished(connection: AsyncConnection, client: str) -> int:
    """Count the client's imports that have not ended."""
    query = select(func.count()).where(Import.client == client, Import.has_body, Import.state.in_(_UNFINISHED))
    return (await connection.execute(query)).scalar_one()


async def sum_bytes(connection: AsyncConnection, client: str) -> int:
    """Return how many bytes the bodies of the client's imports take."""
    query = select(func.coalesce(func.sum(Import.upload_offset), 0))
    return int(await connection.scalar(query.where(Import.client == client, Import.has_body)) or 0)


async def get_client(connection: AsyncConnection, id_: UUID) -> str | None:
    """Return who made an import; None if that is not known, or there is no import."""
    return await connection.scalar(select(Import.client).where(Import.id == id_))


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


async def fail_upload(connection: AsyncConnection, id_: UUID, problem: dict[str, Any]) -> None:
    """Take no more of a body that is no use."""
    # receiving -> failed: the body is too long
    values = {"state": ImportState.FAILED, "problem": problem, "finished_at": func.now()}
    await connection.execute(_receiving(id_).values(values))


async def delete_import(connection: AsyncConnection, id_: UUID) -> None:
    """Hide an import, for its rows to be deleted; stops it if it has not ended.

    Raises:
        NotFound: there is none of this id, or the request's key may not see it.
    """
    statement = update(Import).where(Import.id == id_, _visible())
    # any -> deleted; the process that runs it finds its claim lost
    values = {"state": ImportState.DELETED, "lease_owner": None, "lease_until": None, "finished_at": func.now()}
    if not (await connection.execute(statement.values(values))).rowcount:
        raise NotFound(f"There is no import {id_}.")


async def list_rejects(connection: AsyncConnection, id_: UUID, after_row: int, limit: int) -> Sequence[RowMapping]:
    """Return the rejected rows behind `after_row` in their order; `fields` as JSON text."""
    fields = cast(ImportReject.fields, Text).label("fields")
    query = select(ImportReject.row, ImportReject.code, ImportReject.detail, fields)
    query = query.where(ImportReject.import_id == id_, ImportReject.row > after_row)
    return (await connection.execute(query.order_by(ImportReject.row).limit(limit))).mappings().all()


async def list_reasons(connection: AsyncConnection, id_: UUID) -> Sequence[RowMapping]:
    """Return why the rows that are kept were rejected: each reason once, the commonest first; 20 at most."""
    return (await connection.execute(_REASONS, {"id": id_})).mappings().all()
