"""What travels on the wire. For the documentation: answers are rendered without models, for speed."""

from datetime import date, datetime
from typing import Any, Literal
from uuid import UUID

from pydantic import BaseModel, Field


class TextItem(BaseModel):
    """A labelled text."""

    id: UUID
    dataset: str
    text: str
    label: str | None = Field(description="What most submitted annotations say; null for a tie.")
    status: Literal["labelled", "disputed"]
    agreement: float = Field(description="Share of the most frequent label.")
    votes: dict[str, int] = Field(description="Submitted annotations by label.")
    annotations: int = Field(description="Submitted annotations.")
    source: str | None
    external_id: str | None
    claimed_label: str | None = Field(description="What the sender said.")
    score: float | None = Field(description="How sure the sender was.")
    metadata: dict[str, str | float | bool]
    enrichment: dict[str, Any] = Field(description="What was found at intake: `language`, `redacted`.")
    received_at: datetime
    labelled_at: datetime = Field(description="When the first label was known; edits keep it.")


class TextPage(BaseModel):
    """A page of labelled texts."""

    items: list[TextItem]
    next_cursor: str | None = Field(description="For the next page; null on the last one.")
    version: int = Field(description="Point of the change feed that the answer shows.")


class AnnotationItem(BaseModel):
    """One annotator's answer."""

    annotator: str
    value: str | None
    status: Literal["submitted", "draft", "discarded"]
    created_at: datetime
    updated_at: datetime


class TextDetail(TextItem):
    """A labelled text with its annotations."""

    annotations: list[AnnotationItem]  # type: ignore[assignment]  # the contract uses the name twice


class Stats(BaseModel):
    """Totals of a dataset."""

    dataset: str
    total: int
    by_label: dict[str, int]
    by_status: dict[str, int]
    by_source: dict[str, int] = Field(description="Texts without a source are under the empty name.")
    by_day: dict[date, int] = Field(description="By the UTC day of `labelled_at`.")
    by_annotator: dict[str, int] = Field(description="Submitted annotations.")
    version: int
    replica_age_seconds: float
