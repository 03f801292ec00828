"""What stands still, stored in Postgres for everybody to see: `GET /queue` and `annotate status` show it."""

from collections.abc import Mapping

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from uploader.guard import Alert

_CLEAR = text("delete from alerts where dataset = :dataset and job = :job")

_RAISE = text("""
insert into alerts (dataset, job, code, reason) values (:dataset, :job, :code, :reason)
on conflict (dataset, job) do update set code = excluded.code, reason = excluded.reason,
    since = case when alerts.code = excluded.code then alerts.since else now() end
""")


async def store_alerts(engine: AsyncEngine, dataset: str, alerts: Mapping[str, Alert | None]) -> None:
    """Store what is known of some jobs of a dataset: the alert of each, or that it goes on."""
    async with engine.begin() as connection:
        for job, alert in sorted(alerts.items()):
            values = {"dataset": dataset, "job": job}
            if alert is None:
                await connection.execute(_CLEAR, values)
            else:
                reason = alert.reason.replace("\0", "�")
                await connection.execute(_RAISE, values | {"code": alert.code, "reason": reason})
