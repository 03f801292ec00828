"""Signatures of Argilla's events, and this process's copy of the webhooks' secrets."""

import re
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sqlalchemy.ext.asyncio import AsyncEngine
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from core.web.problems import BadSignature
from ingestion_api.texts.repository import list_webhook_secrets

HEADERS = ("webhook-id", "webhook-timestamp", "webhook-signature")
_ID = re.compile(r"[\x21-\x7e]{1,200}")
_TIMESTAMP = re.compile(r"[0-9]{1,15}")
_SIGNATURES = re.compile(r"v1,[A-Za-z0-9+/]{43}=( [\x21-\x7e]{1,200}){0,9}")
_TOLERANCE_SECONDS = 5 * 60  # that of standardwebhooks

# Events with unknown signatures make us reload the secrets at most this often.
_LOOK_SECONDS = 1.0
# A withdrawn secret is forgotten after this time.
_KEEP_SECONDS = 10.0


def check_headers(given: Mapping[str, str]) -> dict[str, str]:
    """Check the form and age of an event's headers, before its body is read, and return them.

    Raises:
        BadSignature: one is missing, malformed, or too old.
    """
    headers = {name: given[name] for name in HEADERS if name in given}
    if len(headers) < len(HEADERS):
        raise BadSignature(f"Send {', '.join(HEADERS)}.")
    for name, pattern in zip(HEADERS, (_ID, _TIMESTAMP, _SIGNATURES), strict=True):
        if not pattern.fullmatch(headers[name]):
            raise BadSignature(f"{name} is not as Argilla sends it.")
    if abs(time.time() - int(headers["webhook-timestamp"])) > _TOLERANCE_SECONDS:
        raise BadSignature("The event is over five minutes old, or one of the clocks is wrong.")
    return headers


class WebhookSecrets:
    """This process's copy of the webhooks' secrets."""

    def __init__(self, engine: AsyncEngine, clock: Callable[[], float] = time.monotonic) -> None:
        self._engine = engine
        self._clock = clock
        self._webhooks: list[Webhook] = []
        self._read_at: float | None = None

    async def verify(self, body: bytes, headers: Mapping[str, str]) -> None:
        """Check that Argilla signed an event within the last five minutes.

        Raises:
            BadSignature: it did not.
            sqlalchemy.exc.SQLAlchemyError: the secrets cannot be read.
        """
        await self._refresh(_KEEP_SECONDS)
        if is_signed(body, headers, self._webhooks):
            return
        # The webhook may be new.
        await self._refresh(_LOOK_SECONDS)
        if not is_signed(body, headers, self._webhooks):
            raise BadSignature("The event is not signed by a webhook of ours, or is over five minutes old.")

    async def _refresh(self, seconds: float) -> None:
        now = self._clock()
        if self._read_at is not None and now - self._read_at < seconds:
            return
        async with self._engine.connect() as connection:
            secrets = await list_webhook_secrets(connection)
        self._webhooks = [Webhook(secret) for secret in secrets]
        self._read_at = now


def is_signed(body: bytes, headers: Mapping[str, str], webhooks: Sequence[Webhook]) -> bool:
    """Whether one of the webhooks' secrets signed the body, at most five minutes ago."""
    return any(_is_signed_by(webhook, body, dict(headers)) for webhook in webhooks)


def _is_signed_by(webhook: Webhook, body: bytes, headers: dict[str, Any]) -> bool:
    try:
        webhook.verify(body, headers, json_parse=False)
    except (WebhookVerificationError, ValueError):
        # The library raises ValueError for a signature that it cannot split or decode.
        return False
    return True
