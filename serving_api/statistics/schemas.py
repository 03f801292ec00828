"""Responses of the endpoints of statistics, with examples and refusals for OpenAPI."""

from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

from pydantic import BaseModel, Field

from core.web.openapi import Responses, with_example
from serving_api.statistics.agreement import Coefficient
from serving_api.texts.schemas import UNCHANGED, refuses, sends, wrong_parameter

_COEFFICIENT: dict[str, Any] = {"value": 0.71, "n": 1200, "low": 0.68, "high": 0.74}


class Stats(BaseModel):
    """Totals of a dataset."""

    model_config = with_example(
        {
            "dataset": "toxicity",
            "total": 3,
            "complete": 2,
            "by_label": {"toxic": 1, "non_toxic": 1},
            "by_status": {"labelled": 2, "disputed": 1},
            "by_source": {"forum": 2},
            "without_source": 1,
            "by_day": {"2026-11-02": 3},
            "by_annotator": {"ada": 3, "grace": 2},
            "version": 91342,
            "replica_age_seconds": 0.412,
        }
    )

    dataset: str
    total: int
    complete: int = Field(description="Texts that have as many submitted annotations as the dataset wants.")
    by_label: dict[str, int]
    by_status: dict[str, int]
    by_source: dict[str, int]
    without_source: int = Field(description="Texts that have no source.")
    by_day: dict[date, int] = Field(description="By the UTC day of `labelled_at`.")
    by_annotator: dict[str, int] = Field(description="Submitted annotations.")
    version: int
    replica_age_seconds: float


@dataclass(frozen=True, slots=True)
class PairCoefficient(Coefficient):
    """Cohen's kappa of two annotators; `n` is the number of texts that both answered."""

    annotators: tuple[str, str]


class AgreementStats(BaseModel):
    """How far annotators agree."""

    model_config = with_example(
        {
            "dataset": "toxicity",
            "krippendorff_alpha": _COEFFICIENT,
            "fleiss_kappa": _COEFFICIENT,
            "observed_agreement": {"value": 0.86, "n": 1200, "low": 0.85, "high": 0.87},
            "cohen_kappa": [{"annotators": ["ada", "grace"], "value": 0.73, "n": 800, "low": 0.68, "high": 0.78}],
            "pairs": 1,
            "version": 91342,
        }
    )

    dataset: str
    krippendorff_alpha: Coefficient = Field(description="Nominal; a text weighs as its number of answers.")
    fleiss_kappa: Coefficient = Field(
        description="Generalised to unequal numbers of answers as by Gwet: each text weighs the same."
    )
    observed_agreement: Coefficient = Field(description="Share of agreeing pairs of answers on the same text.")
    cohen_kappa: list[PairCoefficient] = Field(
        description="Of each pair of annotators, up to 100 pairs; those that share the most texts, first."
    )
    pairs: int | None = Field(description="Pairs of annotators that share texts; null if they were not counted.")
    version: int


class Share(BaseModel):
    """A share of `n` texts."""

    value: float | None = Field(description="0 to 1; null where there are no such texts.")
    n: int


class AnnotatorStats(BaseModel):
    """The work of one annotator."""

    annotator: str
    answers: int = Field(description="Submitted annotations.")
    discarded: int
    first_at: datetime = Field(description="When the first of them was given; edits keep it.")
    last_at: datetime
    answers_per_hour: float | None = Field(
        description="Pace while at work, discards included: steps from one to the next by the time they took. "
        "A step of more than 10 minutes is a pause and does not count. Null without a step."
    )
    agreement_with_outcome: Share = Field(
        description="Answers that are the text's label, of those on labelled texts that others answered, too."
    )
    gold_accuracy: Share = Field(description="Right answers on gold texts.")
    confusion: dict[str, dict[str, int]] = Field(
        description="By the text's label, how often they gave which answer; the texts of `agreement_with_outcome`."
    )


class AnnotatorsStats(BaseModel):
    """The work of each annotator, by number of answers."""

    model_config = with_example(
        {
            "dataset": "toxicity",
            "annotators": [
                {
                    "annotator": "ada",
                    "answers": 900,
                    "discarded": 4,
                    "first_at": "2026-11-02T09:12:40.100000Z",
                    "last_at": "2026-11-05T16:40:02.730000Z",
                    "answers_per_hour": 240.5,
                    "agreement_with_outcome": {"value": 0.94, "n": 850},
                    "gold_accuracy": {"value": 0.96, "n": 50},
                    "confusion": {
                        "toxic": {"toxic": 370, "non_toxic": 20},
                        "non_toxic": {"toxic": 31, "non_toxic": 429},
                    },
                }
            ],
            "version": 91342,
        }
    )

    dataset: str
    annotators: list[AnnotatorStats]
    version: int


class FacetValue(BaseModel):
    """A value of a filter, and the number of texts with it."""

    value: bool | str | float | None = Field(
        description="Null where texts have none: disputed ones have no label."
    )
    texts: int


class Facets(BaseModel):
    """For each filter its most frequent values, at most 50, among the texts that the other filters leave."""

    model_config = with_example(
        {
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
    )

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
    """Labels and answers of one day, UTC."""

    day: date
    labels: dict[str, int] = Field(description="Texts by label, on the day of their `labelled_at`.")
    disputed: int = Field(description="Texts without a label, since annotators don't agree.")
    answers: dict[str, int] = Field(description="Submitted annotations by annotator.")


class DailyCounts(BaseModel):
    """Labels and answers by day, the oldest first; days without any are left out."""

    model_config = with_example(
        {
            "dataset": "toxicity",
            "days": [
                {
                    "day": "2026-11-02",
                    "labels": {"toxic": 2},
                    "disputed": 1,
                    "answers": {"ada": 3, "grace": 2},
                },
            ],
            "version": 91342,
        }
    )

    dataset: str
    days: list[DayCounts]
    version: int


_UNKNOWN_DATASET = wrong_parameter("dataset", "unknown_dataset", "dataset 'x' is not one of: toxicity.")
_ONE_ANNOTATOR = wrong_parameter("annotator", "too_short", "annotator must be sent at least 2 times (got 1).")

STATS: Responses = sends(has_etag=False) | refuses(_UNKNOWN_DATASET)
AGREEMENT: Responses = sends() | UNCHANGED | refuses(_ONE_ANNOTATOR)
COUNTED: Responses = sends() | UNCHANGED | refuses(_UNKNOWN_DATASET)
