"""Scores comments in Perspective's terms, and submits suggested scores to the ingestion API."""

from collections.abc import Mapping
from typing import Any, NamedTuple, TypeVar

import httpx
import orjson
import structlog
from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import SettingsConfigDict

from core.datasets import Datasets
from core.settings import SettingsGroup
from core.text_identity import TEXT_BYTES
from core.web.keys import require_dataset_allowed
from core.web.problems import Unavailable, quoted
from serving_api.models.service import Models
from serving_api.perspective.schemas import (
    NOT_SET_UP,
    NOT_UNDERSTOOD,
    AnalyzeCommentRequest,
    AnalyzeCommentResponse,
    AttributeScores,
    BadComment,
    CommentRequest,
    IngestionFailed,
    Message,
    NotSetUp,
    Score,
    SpanScore,
    SuggestCommentScoreRequest,
    SuggestCommentScoreResponse,
    away,
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
            raise away() from error
        if not response.is_success:
            raise _refusal(response)

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()


def _refusal(response: httpx.Response) -> Exception:
    """Return what an error of the ingestion API means to the client of the suggestion."""
    if response.status_code in {400, 413, 422}:
        return BadComment(f"The ingestion API refuses {_explain_refusal(response)}")
    log.error("suggestion.not_stored", status=response.status_code)
    if response.status_code in {429, 503}:
        return Unavailable("The ingestion API is busy: send the suggestion again.", code="ingestion_busy")
    return IngestionFailed(NOT_UNDERSTOOD)


# The fields of a submission, as they are called in a suggestion.
_FIELDS = {"/text": "comment.text", "/source": "communityId", "/external_id": "clientToken"}


def _explain_refusal(response: httpx.Response) -> str:
    try:
        problem = response.json()
        wrong = next(iter(problem.get("errors", ())), problem)
        return f"{_FIELDS.get(wrong.get('pointer'), 'this')}: {wrong['detail']}"
    except (ValueError, LookupError, TypeError, AttributeError):
        return "this, and does not say why."


Asked = TypeVar("Asked", bound=Message)

# No message is nested deeper. What a client nests a thousand times would exceed Python's recursion limit.
_MESSAGE_LEVELS = 8


class AttributeLabel(NamedTuple):
    """The label that an attribute means."""

    dataset: str
    label: str


def read_attributes(settings: PerspectiveSettings, datasets: Datasets) -> dict[str, AttributeLabel]:
    """Return the labels by attribute. The default setting loses its dataset where there is no such one.

    Raises:
        SystemExit: the setting is malformed, or names a dataset or a label that does not exist.
    """
    found = {}
    for part in filter(None, (one.strip() for one in settings.attributes.split(","))):
        attribute, _, target = part.partition("=")
        dataset, _, label = target.partition(".")
        if dataset in datasets and label in datasets[dataset].labels:
            found[attribute.strip()] = AttributeLabel(dataset, label)
        elif "attributes" in settings.model_fields_set:
            raise SystemExit(f"PERSPECTIVE_ATTRIBUTES: {part!r} is not ATTRIBUTE=dataset.label of the settings.")
    return found


def parse(model: type[Asked], body: bytes) -> Asked:
    """Read a request as Google's servers do: null is as good as nothing, unknown fields are refused.

    Raises:
        BadComment: it is not JSON, or not such a message.
    """
    try:
        return model.model_validate(_without_nulls(orjson.loads(body)))
    except orjson.JSONDecodeError as error:
        raise BadComment("Invalid JSON payload received.") from error
    except ValidationError as error:
        raise BadComment(_explain(error)) from error


def _without_nulls(value: Any, levels: int = _MESSAGE_LEVELS) -> Any:
    if levels and isinstance(value, dict):
        return {name: _without_nulls(one, levels - 1) for name, one in value.items() if one is not None}
    return [_without_nulls(one, levels - 1) for one in value] if levels and isinstance(value, list) else value


def _explain(error: ValidationError) -> str:
    wrong = error.errors()[0]
    *path, name = map(str, wrong["loc"] or ("the body",))
    if wrong["type"] == "extra_forbidden":
        where = f" at {quoted('.'.join(path))}" if path else ""
        return f"Invalid JSON payload received. Unknown name {quoted(name)}{where}: Cannot find field."
    return f"Invalid value at {quoted('.'.join([*path, name]))}: {wrong['msg']}"


class Perspective:
    """Perspective's two methods."""

    def __init__(self, settings: PerspectiveSettings, datasets: Datasets, models: Models) -> None:
        self._attributes = read_attributes(settings, datasets)
        self._datasets = datasets
        self._models = models
        self.ingestion = IngestionClient(settings)

    async def analyze(self, asked: AnalyzeCommentRequest) -> AnalyzeCommentResponse:
        """Score a comment.

        Raises:
            BadComment: the comment or an attribute is not supported.
            Unavailable: the dataset of an attribute has no model yet.
        """
        text = _require_text(asked)
        targets = self._require_targets(asked.requested_attributes, drop=asked.drop_unsupported_attributes)
        for name, parameters in asked.requested_attributes.items():
            if name in targets and parameters.score_type not in {"PROBABILITY", "SCORE_TYPE_UNSPECIFIED"}:
                raise BadComment(
                    f"Requested score type {parameters.score_type} is not supported by attribute {name}"
                )
        by_dataset = {}
        for dataset in {target.dataset for target in targets.values()}:
            _, [by_dataset[dataset]] = await self._models.score(dataset, [text])
        scores = {}
        for name, target in targets.items():
            value = by_dataset[target.dataset][target.label]
            if value >= asked.requested_attributes[name].score_threshold:
                scores[name] = _scores(value, len(text) if asked.span_annotations else None)
        return AnalyzeCommentResponse(
            attribute_scores=scores, languages=asked.languages, client_token=asked.client_token
        )

    async def suggest(
        self, asked: SuggestCommentScoreRequest, key_name: str | None
    ) -> SuggestCommentScoreResponse:
        """Hand suggested scores to the ingestion API, for each dataset the one that is farthest from 0.5.

        Raises:
            BadComment: the comment, an attribute or its score is not supported.
            Unavailable, IngestionFailed, NotSetUp: nothing, or not everything, was stored; sending it again helps.
        """
        text = _require_text(asked)
        targets = self._require_targets(asked.attribute_scores)
        suggested: dict[str, tuple[AttributeLabel, float]] = {}
        for name, target in targets.items():
            summary = asked.attribute_scores[name].summary_score
            if summary is None:
                raise BadComment(f"Missing summary_score of attribute {name}")
            _, known = suggested.get(target.dataset, (target, 0.5))
            if abs(summary.value - 0.5) >= abs(known - 0.5):
                suggested[target.dataset] = target, summary.value
        for target, value in suggested.values():
            submission = {"text": text, "dataset": target.dataset} | self._claim(target, value)
            if source := asked.community_id or key_name:
                submission["source"] = source
            if asked.client_token:
                submission["external_id"] = asked.client_token
            await self.ingestion.submit(submission)
        return SuggestCommentScoreResponse(requested_languages=asked.languages, client_token=asked.client_token)

    def _claim(self, target: AttributeLabel, value: float) -> dict[str, Any]:
        """Return the claim that a score makes. A low one claims the other label, where there is exactly one."""
        others = [label for label in self._datasets[target.dataset].labels if label != target.label]
        if value >= 0.5:
            return {"label": target.label, "score": value}
        return {"label": others[0], "score": 1 - value} if len(others) == 1 else {}

    def _require_targets(self, asked: Mapping[str, object], *, drop: bool = False) -> dict[str, AttributeLabel]:
        if not asked:
            raise BadComment("Missing requested_attributes", code="no_requested_attributes")
        for name in asked:
            if name not in self._attributes and not drop:
                raise BadComment(f"Unknown requested attribute: {quoted(name)}")
        targets = {name: self._attributes[name] for name in asked if name in self._attributes}
        for target in targets.values():
            require_dataset_allowed(target.dataset)
        return targets


def _require_text(asked: CommentRequest) -> str:
    text = asked.comment.text
    if not text.strip():
        raise BadComment("Comment must be non-empty.", code="comment_empty")
    if len(text.encode()) > TEXT_BYTES:
        raise BadComment("Comment text too long.", code="comment_too_long")
    if "\0" in text:
        raise BadComment("Comment must not have NUL characters.")
    if asked.comment.type == "HTML":
        raise BadComment("Currently, only 'PLAIN_TEXT' comments are supported")
    return text


def _scores(value: float, span_end: int | None) -> AttributeScores:
    score = Score(value=value, type="PROBABILITY")
    spans = [] if span_end is None else [SpanScore(begin=0, end=span_end, score=score)]
    return AttributeScores(span_scores=spans, summary_score=score)
