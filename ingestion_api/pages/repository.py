"""The query of the datasets' pages in Argilla."""

from uuid import UUID

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from core.models import Dataset


async def list_argilla_ids(connection: AsyncConnection) -> dict[str, UUID]:
    """Return the id in Argilla of each dataset that has one, by its name."""
    query = select(Dataset.name, Dataset.argilla_dataset_id).where(Dataset.argilla_dataset_id.is_not(None))
    rows = await connection.execute(query)
    return {name: id_ for name, id_ in rows if id_ is not None}
