"""How many unfinished imports one client may have, and how long their bodies may be together."""

from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from ingestion_api.imports import repository
from ingestion_api.imports.problems import ImportBytesExceeded, TooManyImports
from ingestion_api.settings import IngestionSettings


async def require_room(
    connection: AsyncConnection, settings: IngestionSettings, client: str, length: int | None
) -> None:
    """Check that a client may make another import, of `length` bytes if that is known, in this transaction.

    Raises:
        TooManyImports, ImportBytesExceeded: it may not.
    """
    await repository.lock_client(connection, client)
    if await repository.count_unfinished(connection, client) >= settings.client_imports:
        raise TooManyImports(settings.client_imports)
    if await repository.sum_bytes(connection, client) + (length or 0) > settings.client_import_bytes:
        raise ImportBytesExceeded(settings.client_import_bytes)


async def require_room_for_piece(connection: AsyncConnection, settings: IngestionSettings, id_: UUID) -> None:
    """Check, after a piece was added to an import's body in this transaction, that its client had room for it.

    Raises:
        ImportBytesExceeded: it had not.
    """
    client = await repository.get_client(connection, id_)
    if client is not None and await repository.sum_bytes(connection, client) > settings.client_import_bytes:
        raise ImportBytesExceeded(settings.client_import_bytes)
