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
    """Return a timestamp, UTC without a zone, in RFC 3339 with microseconds."""
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
    """Return the timestamp in UTC without a zone, as the replica stores it. A timestamp without a zone is UTC."""
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
    """The orders of a sorted export."""

    NEWEST = Order.NEWEST.value
    OLDEST = Order.OLDEST.value


class LabelStatusFilter(StrEnum):
    """The values of a status filter."""

    LABELLED = "labelled"
    DISPUTED = "disputed"


class DatasetParameters(BaseModel):
    """The dataset."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    dataset: DatasetName | None = Field(
        None, description="Dataset; without it the default one.", examples=["toxicity"]
    )


class SourceParameters(DatasetParameters):
    """Texts of a dataset by their source."""

    source: Word | None = Field(None, description="Only texts from this source.", examples=["forum"])


class PeriodParameters(SourceParameters):
    """Labelled texts by their source and by the time of their labels."""

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
    """Annotators whose agreement is measured."""

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
    """The filters of all endpoints that read labelled texts."""

    language: Word | None = Field(
        None, description="Only texts in this language, by `enrichment`.", examples=["en"]
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
        description="Only texts that contain this, by the rule `match`. It ignores case, and has no wildcards.",
        examples=["you are"],
    )
    match: Match = Field(
        Match.SUBSTRING,
        description="How `q` is matched. `substring`: the text contains `q`, with its spaces. `words`: it has "
        "each of its words, whole, in any order. `phrase`: it has the words in a row, whole. `prefix`: for each "
        "word it has a word that begins so. In scripts without spaces (Chinese, Japanese, Thai …) words need not "
        "be whole.",
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
    """A page of the list of one label."""

    order: Order = Field(
        Order.NEWEST,
        description="Newest or oldest label first; `relevance`: the best matches of `q` first, at most 1,000.",
        examples=["newest"],
    )
    limit: Limit = 100
    cursor: Cursor | None = Field(
        None,
        description="`next_cursor` of the page before; the filters and the order must be the same.",
        examples=[EXAMPLE_CURSOR],
    )


class TextsParameters(PageParameters, LabelParameters):
    """A page of all labelled texts."""


class ExportParameters(LabelParameters):
    """Labelled texts to export."""

    order: TimeOrder | None = Field(
        None,
        description="Newest or oldest label first; without it the order of the replica, roughly the oldest first.",
        examples=["newest"],
    )


class CsvParameters(ExportParameters):
    """Labelled texts to export as CSV."""

    spreadsheet: bool = Field(
        False,
        description="For spreadsheets: a `'` before cells that look like formulas, and a byte order mark.",
        examples=[True],
    )


class RankedParameters(SourceParameters):
    """A page of a list of texts that need attention."""

    limit: Limit = 100
    cursor: Cursor | None = Field(
        None,
        description="`next_cursor` of the page before; the other parameters but `limit` must be the same.",
        examples=[EXAMPLE_CURSOR],
    )


class DisputedParameters(RankedParameters):
    """A page of the list of disputed texts."""

    confidence_below: float = Field(
        0.7,
        ge=0,
        le=1,
        description="Also list labels that annotators decided with less `confidence`; 0: none.",
        examples=[0.7],
    )


class DaysParameters(PeriodParameters):
    """Days to count."""

    days: int = Field(
        30, ge=1, le=366, description="Number of days, up to the last one with a label.", examples=[30]
    )


class ChangesParameters(DatasetParameters):
    """The position in the change feed, and how long to wait for the next change."""

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
    """For endpoints without parameters: refuses all."""

    model_config = ConfigDict(frozen=True, extra="forbid")
