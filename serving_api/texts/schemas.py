"""What travels on the wire. For the documentation: answers are rendered without models, for speed."""

from datetime import date, datetime
from typing import Literal
from uuid import UUID

from pydantic import BaseModel, Field

from serving_api.columns import TextItem
from serving_api.replica.tables import Role


class TextPage(BaseModel):
    """A page of labelled texts."""

    items: list[TextItem]
    next_cursor: str | None = Field(description="For the next page; null on the last one.")
    version: int = Field(description="Point of the change feed that the answer shows.")


class FoundItem(TextItem):
    """A labelled text, and what of it was searched for."""

    highlights: list[tuple[int, int]] | None = Field(
        None,
        description="With `q` only: where the text matches, [start, end) in Unicode code points; the first 100.",
        examples=[[[0, 7]]],
    )


class CountedPage(TextPage):
    """A page of labelled texts, and how many there are on all pages."""

    items: list[FoundItem]  # type: ignore[assignment]  # each is a text, too

    total: int | None = Field(
        description="Texts on all pages. Null if more is asked for than `dataset`, `label`, `source`, `language` "
        "and `status`: they would have to be counted."
    )


class Upsert(TextItem):
    """A labelled text that is new, or not as it was."""

    op: Literal["upsert"]
    version: int


class Delete(BaseModel):
    """A text that is labelled no more."""

    op: Literal["delete"]
    version: int
    id: UUID
    dataset: str


class ChangesPage(BaseModel):
    """A page of changes, in the order of their versions."""

    items: list[Upsert | Delete]
    next: int = Field(
        description="For `since`: where the next page begins. The same as `since` if nothing is new."
    )
    feed: str = Field(description="Which database the versions belong to.")


class AnnotationItem(BaseModel):
    """One annotator's, or adjudicator's, answer."""

    annotator: str
    role: Role = Field(description="Adjudicators are asked about disputes; `votes` are without theirs.")
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
    complete: int = Field(description="Texts that have as many submitted annotations as the dataset wants.")
    by_label: dict[str, int]
    by_status: dict[str, int]
    by_source: dict[str, int]
    without_source: int = Field(description="Texts that have no source.")
    by_day: dict[date, int] = Field(description="By the UTC day of `labelled_at`.")
    by_annotator: dict[str, int] = Field(description="Submitted annotations.")
    version: int
    replica_age_seconds: float


class Coefficient(BaseModel):
    """A coefficient of agreement with its bootstrap 95 % interval."""

    value: float | None = Field(description="Null where it is undefined: no such texts, or one label only.")
    n: int = Field(description="Texts used: those with two or more answers.")
    low: float | None = Field(description="Null also where there is one text only.")
    high: float | None


class PairCoefficient(Coefficient):
    """Cohen's kappa of two annotators; `n` is the number of texts that both answered."""

    annotators: tuple[str, str]


class AgreementStats(BaseModel):
    """How far annotators agree."""

    dataset: str
    krippendorff_alpha: Coefficient = Field(description="Nominal; a text weighs as its number of answers.")
    fleiss_kappa: Coefficient = Field(
        description="Generalised to unequal numbers of answers as by Gwet: each text weighs the same."
    )
    observed_agreement: Coefficient = Field(description="Share of agreeing pairs of answers on the same text.")
    cohen_kappa: list[PairCoefficient] = Field(
        description="Of each pair of annotators, up to 100 pairs; those that share the most texts, first."
    )
    pairs: int = Field(description="Pairs of annotators that share texts.")
    version: int


class Share(BaseModel):
    """A share of `n` texts."""

    value: float | None = Field(description="0 to 1; null where there are no such texts.")
    n: int


class AnnotatorStats(BaseModel):
    """What one annotator did."""

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
    """What each annotator did; who answered the most, first."""

    dataset: str
    annotators: list[AnnotatorStats]
    version: int
