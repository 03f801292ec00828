"""Request and response models, with their examples."""

import math
from collections.abc import Callable
from datetime import datetime
from itertools import pairwise
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainValidator,
    TypeAdapter,
    ValidationInfo,
    WithJsonSchema,
)
from pydantic.config import JsonDict
from pydantic_core import PydanticCustomError
from sqlalchemy import RowMapping
from typing_extensions import TypedDict

from core.datasets import DEFAULT_DATASET, Datasets, Redactable
from core.text_identity import is_visible
from core.web.openapi import DATASET_NAME, LABEL_NAME, VISIBLE, WITHOUT_NUL
from core.web.problems import quoted

METADATA_CHARACTERS = 8000


TEXT_ID = "d4a7c5f0-7f0e-8c55-9a3e-0f3d6d9f1c2b"
_TEXT_READ: JsonDict = {
    "id": TEXT_ID,
    "dataset": "toxicity",
    "text": "You are all idiots.",
    "claimed_label": "toxic",
    "score": 0.93,
    "source": "forum",
    "external_id": "post-17",
    "metadata": {"thread": 4},
    "enrichment": {"language": {"code": "en", "confidence": 0.91}},
    "status": "labelled",
    "received_at": "2026-11-01T08:30:00.000000Z",
    "uploaded_at": "2026-11-01T08:30:02.501200Z",
    "labelled_at": "2026-11-02T09:12:44.120934Z",
    "attempts": 1,
    "last_error": None,
    "near_duplicates": [{"id": "0c5a6e1b-9a43-8d1c-8f52-7d2b1e9a4c10", "similarity": 0.86}],
    "trace": [
        {"step": "received", "at": "2026-11-01T08:30:00.000000Z", "seconds_since_previous": None},
        {"step": "uploaded", "at": "2026-11-01T08:30:02.501200Z", "seconds_since_previous": 2.5012},
        {"step": "labelled", "at": "2026-11-02T09:12:44.120934Z", "seconds_since_previous": 88961.619734},
    ],
}
_QUEUE: JsonDict = {
    "pending": 120,
    "uploading": 250,
    "uploaded": 4100,
    "failed": 2,
    "near_duplicates": 0,
    "oldest_pending_seconds": 1.25,
    "open_records": 900,
    "alerts": [
        {
            "dataset": "toxicity",
            "code": "argilla_key_unknown",
            "reason": "PUT /api/v1/datasets/…/records/bulk: Argilla answered 401: it does not know the "
            "key in ARGILLA_API_KEY. Set ARGILLA_API_KEY to the key of an owner, …",
            "since": "2026-11-01T08:30:00.000000Z",
        }
    ],
}


def _shown_as(example: JsonDict) -> ConfigDict:
    return ConfigDict(json_schema_extra={"examples": [example]})


def _storable(value: str) -> str:
    """Refuse text that Postgres cannot store."""
    if "\0" in value:
        raise PydanticCustomError("nul_character", "must not have NUL characters")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise PydanticCustomError("lone_surrogate", "must not have lone surrogates") from None
    return value


def _metadata_value(value: Any) -> bool | int | float | str:
    """Refuse values that Argilla would accept but not index: annotators would never see the record."""
    match value:
        case bool():
            return value
        case int() if -(2**63) <= value < 2**63:
            return value
        case float() if math.isfinite(value):
            return value
        case str() if len(value) <= METADATA_CHARACTERS:
            return _storable(value)
    raise PydanticCustomError(
        "metadata_value",
        f"must be true, false, a 64-bit integer, a finite number, or at most {METADATA_CHARACTERS} characters",
    )


def _visible(value: str) -> str:
    if not is_visible(value):
        raise PydanticCustomError("empty_text", "must have at least one visible character")
    return value


def _known_dataset(value: str, info: ValidationInfo[Datasets]) -> str:
    if value not in info.context:
        known = ", ".join(info.context)
        raise PydanticCustomError("unknown_dataset", f"dataset {quoted(value)} is not one of {known}")
    return value


def _null_is(default: Any) -> Callable[[Any], Any]:
    """Many clients send null for a missing value."""
    return lambda value: default if value is None else value


def _known_label(value: str, info: ValidationInfo[Datasets]) -> str:
    # An unknown dataset has no labels to compare with.
    dataset = info.context.get(info.data.get("dataset", ""))
    if dataset and value not in dataset.labels:
        known = ", ".join(dataset.labels)
        raise PydanticCustomError("unknown_label", f"label {quoted(value)} is not one of {known}")
    return value


_PATTERN = Field(json_schema_extra={"pattern": WITHOUT_NUL})
Line = Annotated[str, Field(min_length=1, max_length=1000), _PATTERN, AfterValidator(_storable)]
MetadataName = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(_storable)]
_Integer = Annotated[int, Field(ge=-(2**63), lt=2**63)]
_Number = Annotated[float, Field(json_schema_extra={"not": {"type": "integer"}})]
_Words = Annotated[str, Field(max_length=METADATA_CHARACTERS), _PATTERN]
MetadataValue = Annotated[
    bool | int | float | str,
    PlainValidator(_metadata_value, json_schema_input_type=bool | _Integer | _Number | _Words),
]
# Written out: in pydantic's own schema a pattern of names chooses the values to check, and allows other names.
_METADATA_SCHEMA = {
    "type": "object",
    "maxProperties": 100,
    "propertyNames": {"minLength": 1, "maxLength": 200, "pattern": WITHOUT_NUL},
    "additionalProperties": TypeAdapter(MetadataValue).json_schema(),
}
Metadata = Annotated[
    dict[MetadataName, MetadataValue],
    Field(max_length=100),
    BeforeValidator(_null_is({})),
    WithJsonSchema({"anyOf": [_METADATA_SCHEMA, {"type": "null"}]}),
]
_DatasetName = Annotated[str, Field(json_schema_extra=DATASET_NAME)]


class TextCreate(BaseModel):
    """A submission. Validate it with the datasets as context."""

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        json_schema_extra={
            "examples": [
                {"text": "You are all idiots.", "label": "toxic", "score": 0.93, "source": "forum"},
                {"text": "Thanks, that helped!", "external_id": "post-17", "metadata": {"language": "en"}},
            ]
        },
    )

    text: Annotated[str, AfterValidator(_storable), AfterValidator(_visible)] = Field(
        description="The text; at most 64 KiB in UTF-8.", json_schema_extra={"pattern": VISIBLE}
    )
    # Before `label`, whose check needs it. Validated also if it is missing.
    dataset: Annotated[
        str,
        AfterValidator(_known_dataset),
        BeforeValidator(_null_is(DEFAULT_DATASET), json_schema_input_type=_DatasetName | None),
    ] = Field(DEFAULT_DATASET, validate_default=True, description="A dataset that the settings define.")
    label: Annotated[str, Field(json_schema_extra=LABEL_NAME), AfterValidator(_known_label)] | None = Field(
        None, description="The sender's claim: one of the dataset's labels."
    )
    score: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] | None = Field(
        None, description="The sender's confidence in the claim."
    )
    source: Line | None = Field(None, description="The source of the text, such as a forum.")
    external_id: Line | None = Field(None, description="The sender's own name for the text.")
    metadata: Metadata = Field(default_factory=dict, description="Shown to annotators with the text.")


# `near_duplicate`: not shown to annotators, who get its near duplicate; see "Enrichment" in the guide.
_STEPS = ("received", "uploaded", "labelled")
ShownStatus = Literal["pending", "uploaded", "labelled", "failed", "near_duplicate"]


class Receipt(BaseModel):
    """The answer to a submission: the text is stored."""

    model_config = _shown_as({"id": TEXT_ID, "status": "pending", "duplicate": False})

    id: UUID
    status: ShownStatus
    duplicate: bool = Field(description="Whether the text was already stored.")


class TraceStep(BaseModel):
    """One step of a text from its receipt to its label."""

    step: Literal["received", "uploaded", "labelled", "failed"]
    at: datetime | None = Field(description="Null for `failed`: its time is not stored.")
    seconds_since_previous: float | None = Field(description="Null for the first step, and for `failed`.")


def trace_steps(row: RowMapping | dict[str, Any]) -> list[TraceStep]:
    """Return the steps so far, in the order of their times, of a row with the columns of `TextRead`.

    A text that was labelled and then uploaded again has its upload last.
    """
    times = sorted((row[f"{step}_at"], step) for step in _STEPS if row[f"{step}_at"] is not None)
    waits = [None, *((later - earlier).total_seconds() for (earlier, _), (later, _) in pairwise(times))]
    steps = [
        TraceStep(step=step, at=at, seconds_since_previous=wait)
        for (at, step), wait in zip(times, waits, strict=True)
    ]
    if row["status"] == "failed":
        steps.append(TraceStep(step="failed", at=None, seconds_since_previous=None))
    return steps


class Language(BaseModel):
    """The detected language of a text."""

    code: str = Field(description="BCP 47, like `en`; `und` if the text is too short or its language uncertain.")
    confidence: float = Field(description="Confidence of the detector, 0 to 1.")


class Enrichment(TypedDict, total=False):
    """Results of the enrichment steps that the dataset has switched on."""

    language: Language
    redacted: Annotated[dict[Redactable, int], Field(description="Number of redacted items by kind.")]


class NearTwin(BaseModel):
    """A text that is nearly the same."""

    id: UUID
    similarity: float = Field(description="Jaccard similarity of runs of 5 characters.")


class TextRead(BaseModel):
    """A text with its status and times."""

    model_config = _shown_as(_TEXT_READ)

    id: UUID
    dataset: str
    text: str
    claimed_label: str | None
    score: float | None
    source: str | None
    external_id: str | None
    metadata: dict[str, Any]
    enrichment: Enrichment
    status: ShownStatus
    received_at: datetime
    uploaded_at: datetime | None
    labelled_at: datetime | None
    attempts: int
    last_error: str | None
    trace: list[TraceStep] = Field(description="The steps that have happened, in the order of their times.")
    near_duplicates: list[NearTwin] = Field(description="Texts that are nearly the same; the 20 most similar.")


class QueueAlert(BaseModel):
    """A problem that blocks work on a dataset until an operator acts."""

    dataset: str
    code: str
    reason: str = Field(description="What is wrong, and what to do.")
    since: datetime


class Queue(BaseModel):
    """How many texts wait, and what blocks them."""

    model_config = _shown_as(_QUEUE)

    pending: int = Field(description="Texts that wait for their upload.")
    uploading: int = Field(description="Texts that an uploader has claimed.")
    uploaded: int = Field(description="Texts that annotators can see, or have answered.")
    failed: int = Field(description="Texts that Argilla refused.")
    near_duplicates: int = Field(description="Texts held back because annotators get a near duplicate.")
    oldest_pending_seconds: float | None = Field(
        description="Age of the oldest pending text, without gold texts; null if none waits."
    )
    open_records: int = Field(description="Uploaded texts that need more answers.")
    alerts: list[QueueAlert] = Field(
        description="Jobs and forget requests that are blocked until an operator acts; normally empty."
    )
