"""The query parameters that choose texts."""

import re
import unicodedata
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints

from core.web.openapi import DATASET_NAME, LABEL_NAME, WITHOUT_NUL
from serving_api.texts.matching import Match


def to_text(moment: datetime) -> str:
    """Return a moment, UTC without a zone, in RFC 3339 with microseconds."""
    return f"{moment.isoformat(timespec='microseconds')}Z"


EXAMPLE_CURSOR = "AAY_bS4vZUB_DG9ePBuKQ52OC2pLjy0RqZLc1Q0KGzk"
EXAMPLE_FEED = "9f86d081884c7d65"

_COUNT_MAX = 2**31 - 1


def _without_nul(value: str) -> str:
    if "\0" in value:
        raise ValueError("holds a NUL character")
    return value


def _not_a_number(value: Any) -> Any:
    # pydantic would take it as seconds since 1970
    if isinstance(value, str) and value.strip().lstrip("+-").replace(".", "", 1).isdigit():
        raise ValueError("is a number, not a time as RFC 3339 has it, like 2026-11-24T08:30:00Z")
    return value


def _to_utc(moment: datetime) -> datetime:
    """Return the moment in UTC without a zone, as the replica holds it; without a zone it is UTC already."""
    try:
        return moment.astimezone(UTC).replace(tzinfo=None) if moment.tzinfo else moment
    except OverflowError as error:
        raise ValueError("is outside of the years 1 to 9999 in UTC") from error


Word = Annotated[
    str,
    StringConstraints(min_length=1, max_length=1000),
    Field(json_schema_extra={"pattern": WITHOUT_NUL}),
    AfterValidator(_without_nul),
]
DatasetName = Annotated[Word, Field(json_schema_extra=DATASET_NAME)]
LabelName = Annotated[Word, Field(json_schema_extra=LABEL_NAME)]
Moment = Annotated[datetime, BeforeValidator(_not_a_number), AfterValidator(_to_utc)]
SearchText = Annotated[Word, AfterValidator(lambda value: unicodedata.normalize("NFC", value))]


def _differ(pair: list[str]) -> list[str]:
    if len(set(pair)) < len(pair):
        raise ValueError("names the same annotator twice")
    return pair


Pair = Annotated[list[Word], Field(json_schema_extra={"uniqueItems": True}), AfterValidator(_differ)]
Limit = Annotated[int, Field(ge=1, le=1000, description="Items on a page at most.", examples=[100])]


# 32 bytes in base64url: the last character has four bits.
CURSOR = "^[A-Za-z0-9_-]{42}[AEIMQUYcgkosw048]$"


def _is_cursor(value: str) -> str:
    if not re.fullmatch(CURSOR, value):
        raise ValueError("is not a cursor: pass next_cursor of the page before, unchanged")
    return value


Cursor = Annotated[str, Field(json_schema_extra={"pattern": CURSOR}), AfterValidator(_is_cursor)]
Feed = Annotated[str, StringConstraints(pattern="^[0-9a-f]{16}$")]


class Order(StrEnum):
    """The order of a list: by when the first label was known, or by how well a search matches."""

    NEWEST = "newest"
    OLDEST = "oldest"
    RELEVANCE = "relevance"


class TimeOrder(StrEnum):
    """The orders of an export that wants one."""

    NEWEST = Order.NEWEST.value
    OLDEST = Order.OLDEST.value


class LabelStatusFilter(StrEnum):
    """What a status filter may ask for."""

    LABELLED = "labelled"
    DISPUTED = "disputed"


class DatasetParameters(BaseModel):
    """Which dataset is meant."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    dataset: DatasetName | None = Field(
        None, description="Dataset; without it the default one.", examples=["toxicity"]
    )


class SourceParameters(DatasetParameters):
    """Which texts of a dataset are meant, by where they came from."""

    source: Word | None = Field(None, description="Only texts from this source.", examples=["forum"])


class PeriodParameters(SourceParameters):
    """Which labelled texts are meant, by where they came from and when they were labelled."""

    labelled_after: Moment | None = Field(
        None,
        description="Only texts labelled later than this; RFC 3339, without a zone it is UTC.",
        examples=["2026-11-01T00:00:00Z"],
    )
    labelled_before: Moment | None = Field(
        None,
        description="Only texts labelled earlier than this; RFC 3339, without a zone it is UTC.",
        examples=["2026-12-01T00:00:00Z"],
    )


class AgreementParameters(PeriodParameters):
    """Whose agreement is asked for."""

    annotator: Pair = Field(
        default_factory=list,
        min_length=2,
        max_length=2,
        description="Send it twice: only this pair, on the texts that both answered.",
        examples=[["ada", "grace"]],
    )
    max_pairs: int = Field(
        100,
        ge=0,
        le=100,
        description="Pairs of annotators in `cohen_kappa`, at most. With 0 they are not counted, which is faster.",
        examples=[100],
    )


class FilterParameters(PeriodParameters):
    """Filters that every way to read labelled texts has."""

    language: Word | None = Field(
        None, description="Only texts in this language, as `enrichment` tells it.", examples=["en"]
    )
    status: LabelStatusFilter | None = Field(
        None, description="Only texts with this status.", examples=["labelled"]
    )
    complete: bool | None = Field(
        None,
        description="Only texts with as many submitted annotations as their dataset wants; false: the others.",
        examples=[True],
    )
    annotator: Word | None = Field(
        None, description="Only texts with a submitted annotation by this annotator.", examples=["ada"]
    )
    min_agreement: float | None = Field(
        None, ge=0, le=1, description="Only texts whose `agreement` is at least this.", examples=[0.8]
    )
    min_annotations: int | None = Field(
        None, ge=0, le=_COUNT_MAX, description="Only texts with at least this many annotations.", examples=[2]
    )
    predicted_label: LabelName | None = Field(
        None, description="Only texts to which the active model gives this label.", examples=["toxic"]
    )
    q: SearchText | None = Field(
        None,
        description="Only texts that contain this, as `match` says; upper and lower case are the same. "
        "No character has a meaning of its own.",
        examples=["you are"],
    )
    match: Match = Field(
        Match.SUBSTRING,
        description="How `q` is looked for. `substring`: all of it, spaces too, anywhere. `words`: each of its "
        "words, whole, in any order. `phrase`: its words side by side, whole. `prefix`: words that begin like "
        "each of its words. Scripts without spaces between words (Chinese, Japanese, Thai …) need no whole words.",
        examples=["substring"],
    )


class LabelParameters(FilterParameters):
    """The filters, and labels."""

    label: list[LabelName] = Field(
        [],
        max_length=100,
        description="Only texts with one of these labels; may be repeated.",
        examples=[["toxic"]],
    )


class PageParameters(FilterParameters):
    """Filters and place of a page of a label's own list."""

    order: Order = Field(
        Order.NEWEST,
        description="Which label comes first; `relevance`: the text that matches `q` best, at most 1,000 of them.",
        examples=["newest"],
    )
    limit: Limit = 100
    cursor: Cursor | None = Field(
        None,
        description="`next_cursor` of the page before; the filters and the order must be the same.",
        examples=[EXAMPLE_CURSOR],
    )


class TextsParameters(PageParameters, LabelParameters):
    """Filters and place of a page of all labelled texts."""


class ExportParameters(LabelParameters):
    """Which labelled texts are exported."""

    order: TimeOrder | None = Field(
        None,
        description="Which label comes first; without it, as they lie in the replica, roughly the oldest first.",
        examples=["newest"],
    )


class CsvParameters(ExportParameters):
    """Which labelled texts are exported, and for which programs."""

    spreadsheet: bool = Field(
        False,
        description="For people: a `'` before what a spreadsheet takes for a formula, and a byte order mark.",
        examples=[True],
    )


class DisputedParameters(SourceParameters):
    """What is on the list of disputed texts, and which page of it."""

    confidence_below: float = Field(
        0.7,
        ge=0,
        le=1,
        description="Labels that annotators decided with less `confidence` are on the list too; 0: none.",
        examples=[0.7],
    )
    limit: Limit = 100
    cursor: Cursor | None = Field(
        None,
        description="`next_cursor` of the page before; the other parameters but `limit` must be the same.",
        examples=[EXAMPLE_CURSOR],
    )


class DaysParameters(PeriodParameters):
    """Which days are counted."""

    days: int = Field(
        30, ge=1, le=366, description="Number of days, up to the last one with a label.", examples=[30]
    )


class ChangesParameters(DatasetParameters):
    """After which change to go on, and how long to wait for the next one."""

    since: int = Field(
        0, ge=0, le=2**63 - 1, description="`next` of the page before; 0: from the beginning.", examples=[91342]
    )
    limit: Limit = Field(
        100,
        description="Where a page ends: with this change, or the last one of the same version. Not for events.",
        examples=[100],
    )
    wait: float = Field(
        0,
        ge=0,
        le=60,
        description="Seconds to wait for a change when there is none yet. Not for events.",
        examples=[0.5],
    )
    feed: Feed | None = Field(
        None,
        description="`feed` of the page before: 409 if the database is another one by now.",
        examples=[EXAMPLE_FEED],
    )


class NoParameters(BaseModel):
    """For paths that take none: refuses all."""

    model_config = ConfigDict(frozen=True, extra="forbid")
