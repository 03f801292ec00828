"""What the endpoints that the dashboard needs send and take, with the examples of the documentation."""

from datetime import date

from pydantic import BaseModel, Field

from core.web.openapi import Responses, answer, key_refusals, unavailable, wrong_parameter
from serving_api.texts.parameters import FilterParameters, LabelName, PeriodParameters
from serving_api.texts.schemas import MALFORMED, NOT_MODIFIED, REPLICA_HEADERS


class FacetParameters(FilterParameters):
    """Filters of the texts whose values are counted."""

    label: list[LabelName] = Field(
        [],
        max_length=100,
        description="Only texts with one of these labels; may be repeated.",
        examples=[["toxic"]],
    )


class DaysParameters(PeriodParameters):
    """Which days are counted."""

    days: int = Field(
        30, ge=1, le=366, description="Number of days, up to the last one with a label.", examples=[30]
    )


class FacetValue(BaseModel):
    """A value of a filter, and the number of texts with it."""

    value: bool | str | float | None = Field(
        description="Null where texts have none: disputed ones have no label."
    )
    texts: int


class Facets(BaseModel):
    """For each filter its most frequent values, at most 50, among the texts that the other filters leave."""

    dataset: str
    total: int = Field(description="Texts that all filters leave.")
    label: list[FacetValue]
    status: list[FacetValue]
    complete: list[FacetValue] = Field(description="Whether texts have as many answers as their dataset wants.")
    source: list[FacetValue]
    language: list[FacetValue]
    annotator: list[FacetValue]
    agreement: list[FacetValue] = Field(description="In steps of 0.1, rounded down.")
    version: int


class DayCounts(BaseModel):
    """What was labelled and answered on one day, UTC."""

    day: date
    labels: dict[str, int] = Field(description="Texts by label, on the day of their `labelled_at`.")
    disputed: int = Field(description="Texts without a label, since annotators don't agree.")
    answers: dict[str, int] = Field(description="Submitted annotations by annotator.")


class DailyCounts(BaseModel):
    """Labels and answers by day, the oldest first; days without any are left out."""

    dataset: str
    days: list[DayCounts]
    version: int


_FACETS = {
    "dataset": "toxicity",
    "total": 3,
    "label": [{"value": "toxic", "texts": 2}, {"value": None, "texts": 1}],
    "status": [{"value": "labelled", "texts": 2}, {"value": "disputed", "texts": 1}],
    "complete": [{"value": True, "texts": 2}, {"value": False, "texts": 1}],
    "source": [{"value": "forum", "texts": 3}],
    "language": [{"value": "en", "texts": 3}],
    "annotator": [{"value": "ada", "texts": 3}, {"value": "grace", "texts": 2}],
    "agreement": [{"value": 1.0, "texts": 2}, {"value": 0.5, "texts": 1}],
    "version": 91342,
}
_DAYS = {
    "dataset": "toxicity",
    "days": [
        {"day": "2026-11-02", "labels": {"toxic": 2}, "disputed": 1, "answers": {"ada": 3, "grace": 2}},
    ],
    "version": 91342,
}
_REFUSALS: Responses = {
    304: NOT_MODIFIED,
    400: MALFORMED,
    **key_refusals("read"),
    422: wrong_parameter("dataset", "unknown_dataset", "'x' is not one of: toxicity."),
    503: unavailable("replica_missing", "The replica is being built.", retry_after_seconds=5),
}
FACETS: Responses = {200: answer("The counts.", _FACETS, model=Facets, headers=REPLICA_HEADERS), **_REFUSALS}
DAYS: Responses = {200: answer("The counts.", _DAYS, model=DailyCounts, headers=REPLICA_HEADERS), **_REFUSALS}
