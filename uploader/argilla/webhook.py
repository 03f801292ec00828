"""Registers our webhook in Argilla, and watches whether its events arrive."""

from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any

import structlog
from sqlalchemy.ext.asyncio import AsyncEngine

from uploader import metrics, repository
from uploader.argilla.client import Argilla
from uploader.argilla.errors import Gone, Refused, Stopped

log = structlog.get_logger()

# Argilla spends a third more on each record with events of `record.created` or `record.updated`.
EVENTS = ("response.created", "response.updated", "response.deleted", "record.deleted")

Json = dict[str, Any]


class Registration:
    """Our webhook in Argilla. Several uploaders may renew it concurrently: they agree on the one that stays."""

    def __init__(self, argilla: Argilla, engine: AsyncEngine, url: str | None, workspace: str) -> None:
        # Whether events can be counted on: at the last look the webhook was there as it should be.
        self.is_on = url is not None
        self._argilla = argilla
        self._engine = engine
        self._url = url
        self._description = f"Annotation platform, workspace {workspace}"

    async def renew(self) -> None:
        """Create or correct our webhook in Argilla, and delete others of ours; without a URL delete all of ours.

        Raises:
            ArgillaError: Argilla is away, or does not let us.
            sqlalchemy.exc.SQLAlchemyError: Postgres is away.
        """
        found = await self._list_ours()
        if self._url is None:
            kept, unwanted = None, found
        else:
            kept, *unwanted = found or [await self._create()]
        right = await self._set_right(kept) if kept else None
        self.is_on = bool(found) and right is not None and right is kept
        for webhook in unwanted:
            await self._delete(webhook["id"])
        async with self._engine.begin() as connection:
            # So that the ingestion API can verify its events.
            await repository.store_webhook(connection, (right["id"], right["secret"]) if right else None)
        metrics.WEBHOOK_REGISTERED.set(right is not None)

    async def _list_ours(self) -> list[Json]:
        """Return our webhooks, the one to be kept first."""
        async with self._engine.connect() as connection:
            held = await repository.list_webhooks(connection)
        webhooks = (await self._argilla.call("GET", "webhooks"))["items"]
        ours = [webhook for webhook in webhooks if webhook["id"] in held or webhook["url"] == self._url]
        return sorted(ours, key=lambda item: (item["url"] != self._url, item["inserted_at"], item["id"]))

    async def _create(self) -> Json:
        body = {"url": self._url, "events": EVENTS, "description": self._description}
        try:
            webhook: Json = await self._argilla.change("POST", "webhooks", body)
        except Refused as refusal:
            raise Stopped(f"Argilla refuses our webhook: {refusal.words}") from refusal
        self._note_renewal(webhook["id"], "created")
        return webhook

    async def _set_right(self, webhook: Json) -> Json:
        if webhook["url"] == self._url and webhook["enabled"] and set(webhook["events"]) == set(EVENTS):
            return webhook
        body = {"url": self._url, "events": EVENTS, "enabled": True}
        changed: Json = await self._argilla.change("PATCH", f"webhooks/{webhook['id']}", body)
        self._note_renewal(webhook["id"], "changed")
        return changed

    async def _delete(self, id_: str) -> None:
        with suppress(Gone):  # another uploader was quicker
            await self._argilla.change("DELETE", f"webhooks/{id_}")
        self._note_renewal(id_, "deleted")

    def _note_renewal(self, id_: str, change: str) -> None:
        metrics.WEBHOOK_RENEWALS.inc()
        log.info("webhook.renewed", webhook_id=id_, change=change)


# An event's time is taken a moment before or after the activity's.
_SLACK = timedelta(seconds=1)

# So that a second look decides.
_SHORTEST_PATIENCE_SECONDS = 0.25


class WebhookHealth:
    """Follows the activity of one dataset, and the events that explain it. Moments are Argilla's."""

    def __init__(self, grace_seconds: float) -> None:
        self._grace_seconds = grace_seconds
        self._unexplained: datetime | None = None
        self._since = 0.0

    def see(self, activity: datetime, swept: datetime | None, applied: datetime | None, now: float) -> None:
        """Take note of the latest activity, that of the last complete sweep, and the newest applied event."""
        explained = [moment for moment in (swept, applied and applied + _SLACK) if moment]
        settled = max(explained) if explained else None
        if self._unexplained and settled and self._unexplained <= settled:
            self._unexplained = None
        if self._unexplained is None and (settled is None or activity > settled):
            self._unexplained, self._since = activity, now

    def is_late(self, now: float, sweep_seconds: float | None) -> bool:
        """Whether an event has been missing for so long that a sweep, which takes `sweep_seconds`, is worth it.

        To wait for as long as a sweep takes wastes at most half of the effort, whether the event comes or not.
        """
        patience = self._grace_seconds
        if sweep_seconds is not None:
            patience = min(patience, max(sweep_seconds, _SHORTEST_PATIENCE_SECONDS))
        return self._unexplained is not None and now - self._since > patience

    def is_settled(self) -> bool:
        """Whether all activity is explained."""
        return self._unexplained is None
