"""Sends suggestions to the ingestion API, as submissions with a claim."""

from typing import Any

import httpx
import structlog
from pydantic import Field, SecretStr, field_validator
from pydantic_settings import SettingsConfigDict

from core.settings import SettingsGroup
from core.web.problems import Unavailable
from serving_api.perspective.schemas import (
    NOT_SET_UP,
    NOT_UNDERSTOOD,
    BadComment,
    IngestionFailed,
    NotSetUp,
)

log = structlog.get_logger()

_TIMEOUT = httpx.Timeout(10, connect=3)


class PerspectiveSettings(SettingsGroup):
    """Perspective's API in the serving API."""

    model_config = SettingsConfigDict(env_prefix="PERSPECTIVE_")

    attributes: str = Field(
        "TOXICITY=toxicity.toxic",
        description="Attributes of Perspective and the labels that they mean, separated by commas, each as "
        "`ATTRIBUTE=dataset.label`.",
    )
    ingestion_url: str | None = Field(
        None,
        pattern=r"^https?://",
        description="Address of the ingestion API, which stores what `comments:suggestscore` gets; without it "
        "suggestions get 501.",
    )
    ingestion_key: SecretStr | None = Field(
        None, description="API key with the scope `ingest` for the ingestion API, where it requires keys."
    )

    @field_validator("ingestion_url", mode="before")
    @classmethod
    def _empty_is_none(cls, url: object) -> object:
        return url or None


class IngestionClient:
    """The ingestion API. Nothing is retried: the client of the suggestion does that, and may."""

    def __init__(self, settings: PerspectiveSettings) -> None:
        self._url = settings.ingestion_url
        key = settings.ingestion_key.get_secret_value() if settings.ingestion_key else ""
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._client = httpx.AsyncClient(base_url=self._url or "", headers=headers, timeout=_TIMEOUT)

    async def submit(self, submission: dict[str, Any]) -> None:
        """Store a submission; it is committed when this returns.

        Raises:
            BadComment: the ingestion API refuses the submission.
            Unavailable: it does not answer, or is busy.
            IngestionFailed: it fails, or answers something else.
            NotSetUp: no ingestion API is set.
        """
        if self._url is None:
            raise NotSetUp(NOT_SET_UP)
        try:
            response = await self._client.post("/texts", json=submission)
        except httpx.HTTPError as error:
            log.warning("suggestion.not_stored", kind=type(error).__name__)
            raise Unavailable(
                "The ingestion API does not answer; nothing was stored.",
                code="ingestion_away",
                retry_after_seconds=5,
            ) from error
        if not response.is_success:
            raise _refusal(response)

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()


def _refusal(response: httpx.Response) -> Exception:
    """Return what an error of the ingestion API means to the client of the suggestion."""
    if response.status_code in {400, 413, 422}:
        return BadComment(f"The ingestion API refuses this: {_detail(response)}")
    log.error("suggestion.not_stored", status=response.status_code)
    if response.status_code in {429, 503}:
        return Unavailable("The ingestion API is busy; nothing was stored.", code="ingestion_busy")
    return IngestionFailed(NOT_UNDERSTOOD)


def _detail(response: httpx.Response) -> str:
    try:
        problem = response.json()
        return str(problem["errors"][0]["detail"] if problem.get("errors") else problem["detail"])
    except (ValueError, LookupError, TypeError):
        return "it does not say why"
