"""Corrects `texts.completed_at` when the settings ask for another number of answers."""

import asyncio

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from core.change_feed import STAMP, wake_readers
from uploader.dataset import DatasetState

_STEP_TEXTS = 1000

_BEGIN = text("""
update datasets
set answers_wanted = :wanted, completion_position = cast('00000000-0000-0000-0000-000000000000' as uuid)
where name = :dataset and answers_wanted is distinct from :wanted
""")

_POSITION = text("select completion_position from datasets where name = :dataset")

_PAGE = text("""
select text_id from labels where dataset = :dataset and text_id > :position order by text_id limit :count
""")

_LOCK = text("""
select texts.id from texts join labels on text_id = texts.id
where texts.id = any(:ids) and (completed_at is not null) <> (annotations >= :wanted)
order by texts.id
for no key update of texts
""")

# After the lock: what an annotator changed meanwhile is seen.
_COMPLETE = text("""
update texts set completed_at = case when annotations >= :wanted then clock_timestamp() end
from labels
where text_id = texts.id and texts.id = any(:ids) and (completed_at is not null) <> (annotations >= :wanted)
""")

# Readers of the change feed see whether a text is complete.
_STAMP = text(f"update labels set changed_xid = {STAMP} where text_id = any(:ids) and status <> 'withdrawn'")  # noqa: S608

_ADVANCE = text("update datasets set completion_position = :position where name = :dataset")


async def settle_completion(state: DatasetState, stopping: asyncio.Event) -> None:
    """Make `completed_at` follow the number of answers that the settings ask for, in steps that survive a restart.

    Raises:
        NotLeading: another uploader leads by now.
        psycopg.Error, sqlalchemy.exc.SQLAlchemyError: Postgres is away.
    """
    while not stopping.is_set():
        async with state.engine.begin() as connection:
            await state.leadership.confirm(connection, to_change=True)
            if not await _step(connection, state.name, state.definition.answers_wanted):
                return


async def _step(connection: AsyncConnection, dataset: str, wanted: int) -> bool:
    """Put up to 1000 texts right; return False when there are no more."""
    values = {"dataset": dataset, "wanted": wanted}
    await connection.execute(_BEGIN, values)
    position = await connection.scalar(_POSITION, values)
    if position is None:
        return False
    page = values | {"position": position, "count": _STEP_TEXTS}
    ids = list((await connection.scalars(_PAGE, page)).all())
    if wrong := list((await connection.scalars(_LOCK, values | {"ids": ids})).all()):
        await connection.execute(_COMPLETE, values | {"ids": wrong})
        await connection.execute(_STAMP, {"ids": wrong})
        await connection.run_sync(wake_readers)
    await connection.execute(_ADVANCE, {"dataset": dataset, "position": ids[-1] if ids else None})
    return bool(ids)
