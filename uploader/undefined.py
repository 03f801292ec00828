"""Datasets that were taken out of the settings: nobody works on their texts, and nothing of them is lost."""

from collections.abc import Collection

import psycopg
import structlog
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine

from core.datasets import adjudicated_by

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
