"""What travels on the wire."""

import math
from datetime import datetime
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
from pydantic_core import PydanticCustomError
from typing_extensions import TypedDict

from core.datasets import DEFAULT_DATASET, Datasets, Redactable
from core.web.openapi import DATASET_NAME, LABEL_NAME, NOT_BLANK, WITHOUT_NUL

ROW_BYTES = 1024 * 1024
METADATA_CHARACTERS = 8000


def _storable(value: str) -> str:
    """Refuse what Postgres cannot store."""
    if "\0" in value:
        raise PydanticCustomError("nul_character", "must not hold NUL characters")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise PydanticCustomError("lone_surrogate", "must not hold lone surrogates") from None
    return value


def _metadata_value(value: Any) -> bool | int | float | str:
    """Refuse what Argilla would take but never index, so that no annotator would see the record."""
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


def _not_blank(value: str) -> str:
    if not value.strip():
        raise PydanticCustomError("empty_text", "must hold more than white space")
    return value


def _known_dataset(value: str, info: ValidationInfo[Datasets]) -> str:
    if value not in info.context:
        raise PydanticCustomError("unknown_dataset", f"must be one of: {', '.join(info.context)}")
    return value


# Many clients write null for what they leave out.
def _null_is_default_dataset(value: Any) -> Any:
    return DEFAULT_DATASET if value is None else value


def _null_is_empty(value: Any) -> Any:
    return {} if value is None else value


def _known_label(value: str, info: ValidationInfo[Datasets]) -> str:
    # Where the dataset itself is wrong there is nothing to hold the label against.
    dataset = info.context.get(info.data.get("dataset", ""))
    if dataset and value not in dataset.labels:
        raise PydanticCustomError("unknown_label", f"must be one of: {', '.join(dataset.labels)}")
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
# As JSON schema pydantic would let a pattern of names say which values are checked, not which names are allowed.
_METADATA_SCHEMA = {
    "type": "object",
    "maxProperties": 100,
    "propertyNames": {"minLength": 1, "maxLength": 200, "pattern": WITHOUT_NUL},
    "additionalProperties": TypeAdapter(MetadataValue).json_schema(),
}
Metadata = Annotated[
    dict[MetadataName, MetadataValue],
    Field(max_length=100),
    BeforeValidator(_null_is_empty),
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

    text: Annotated[str, AfterValidator(_storable), AfterValidator(_not_blank)] = Field(
        description="The text; at most 64 KiB in UTF-8.", json_schema_extra={"pattern": NOT_BLANK}
    )
    # Before the label, whose check needs it; checked also where it is left out.
    dataset: Annotated[
        str,
        AfterValidator(_known_dataset),
        BeforeValidator(_null_is_default_dataset, json_schema_input_type=_DatasetName | None),
    ] = Field(DEFAULT_DATASET, validate_default=True, description="A dataset that the settings define.")
    label: Annotated[str, Field(json_schema_extra=LABEL_NAME), AfterValidator(_known_label)] | None = Field(
        None, description="The sender's claim: one of the dataset's labels."
    )
    score: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] | None = Field(
        None, description="How sure the sender is of the claim."
    )
    source: Line | None = Field(None, description="Where the text comes from.")
    external_id: Line | None = Field(None, description="The sender's own name for the text.")
    metadata: Metadata = Field(default_factory=dict, description="Shown to annotators beside the text.")


# `near_duplicate`: not shown to annotators, who are asked for its near twin; see "Enrichment" in the guide.
ShownStatus = Literal["pending", "uploaded", "labelled", "failed", "near_duplicate"]


class Receipt(BaseModel):
    """The answer to a submission: the text is stored."""

    id: UUID
    status: ShownStatus
    duplicate: bool = Field(description="Whether the text was there before.")


class TraceStep(BaseModel):
    """One step of a text's way."""

    step: Literal["received", "uploaded", "labelled", "failed"]
    at: datetime | None = Field(description="Null for `failed`, whose time is not kept.")
    seconds_since_previous: float | None = Field(
        description="Null for the first step, and where a time is not kept."
    )


class Language(BaseModel):
    """The language of a text, as a detector sees it."""

    code: str = Field(description="BCP 47, like `en`; `und` where the text is too short or nobody can tell.")
    confidence: float = Field(description="How sure the detector is, 0 to 1.")


class Enrichment(TypedDict, total=False):
    """What was found at intake, as far as the dataset asks for it."""

    language: Language
    redacted: Annotated[
        dict[Redactable, int], Field(description="What was taken out before storing: numbers by kind.")
    ]


class NearTwin(BaseModel):
    """A text that is nearly the same."""

    id: UUID
    similarity: float = Field(description="Jaccard similarity of runs of 5 characters.")


class TextRead(BaseModel):
    """A text, and how far it has come."""

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


class Alert(BaseModel):
    """What an operator has to do, so that the work on a dataset goes on."""

    dataset: str
    code: str
    reason: str = Field(description="What is wrong, and what to do.")
    since: datetime


class Queue(BaseModel):
    """How much waits where."""

    pending: int = Field(description="Texts that wait for their upload.")
    uploading: int = Field(description="Texts claimed by an uploader just now.")
    uploaded: int = Field(description="Texts that annotators can see, or have answered.")
    failed: int = Field(description="Texts that Argilla refused.")
    near_duplicates: int = Field(description="Texts that are held, since annotators are asked for a near twin.")
    oldest_pending_seconds: float | None = Field(
        description="Age of the oldest pending text, without gold texts that wait for their share; null: none."
    )
    open_records: int = Field(description="Uploaded texts that want more answers.")
    alerts: list[Alert] = Field(
        description="Jobs and forget requests that are blocked until an operator acts; normally empty."
    )


class RowError(BaseModel):
    """Why one row of a bulk upload was rejected."""

    row: int = Field(description="1-based; blank lines count, a CSV header does not.")
    code: str
    detail: str


class BulkResult(BaseModel):
    """What became of a bulk upload: accepted + duplicates + rejected = received."""

    received: int
    accepted: int
    duplicates: int
    rejected: int
    errors: list[RowError] = Field(description="The first 100.")
