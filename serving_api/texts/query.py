"""Queries of labelled texts: checked parameters, made into SQL of known columns and bound values."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from core.datasets import DEFAULT_DATASET, Datasets
from core.models import Decider, LabelStatus
from core.web.keys import require_dataset_allowed
from core.web.problems import Conflict, FieldError, InvalidFields
from serving_api.replica.tables import KINDS, SEPARATOR, Role
from serving_api.search.matching import MAX_WORDS, Match, Search
from serving_api.texts import cursor
from serving_api.texts.cursor import Position
from serving_api.texts.parameters import (
    AgreementParameters,
    DisputedParameters,
    FilterParameters,
    Order,
    PageParameters,
    PeriodParameters,
    SourceParameters,
)


class Mismatch(Conflict):
    """A parameter is right by itself, but does not go with the others."""

    def __init__(self, error: FieldError) -> None:
        super().__init__(error.detail, code=error.code)
        self.extra = {"errors": [error.as_dict()]}


@dataclass(frozen=True)
class TextsQuery:
    """Selects labelled texts, and their order."""

    dataset: str
    labels: tuple[str, ...]  # none: all of them, disputed texts too
    filters: FilterParameters
    order: Order

    @cached_property
    def search(self) -> Search:
        """What `q` looks for, where it is given."""
        return Search(self.filters.q or "", self.filters.match)

    @cached_property
    def fingerprint(self) -> bytes:
        """The same for queries that ask for the same list, and only for them."""
        # Without those left out: cursors stay valid when there is a further filter.
        filters = self.filters.model_dump_json(
            include=set(FilterParameters.model_fields) - {"dataset"}, exclude_none=True
        )
        parts = repr((self.dataset, self.labels, filters, self.order.value))
        return hashlib.sha256(parts.encode()).digest()


@dataclass(frozen=True)
class PageQuery:
    """One page of a list."""

    texts: TextsQuery
    limit: int
    after: Position | None


@dataclass(frozen=True)
class AgreementQuery:
    """Selects annotators whose agreement is measured, and the texts."""

    texts: TextsQuery
    pair: tuple[str, str] | None  # in the order of their names; None: all annotators


@dataclass(frozen=True)
class DisputedQuery:
    """One page of the texts that need a decision."""

    texts: TextsQuery
    confidence_below: float
    limit: int
    after: Position | None

    @property
    def fingerprint(self) -> bytes:
        """The same for pages of the same list, and only for them."""
        return _disputed_fingerprint(self.texts, self.confidence_below)


def page_query(parameters: PageParameters, labels: Sequence[str], datasets: Datasets) -> PageQuery:
    """Return the query that the parameters ask for.

    Raises:
        InvalidFields: the dataset or a label is not known; each is named.
        Mismatch: a label belongs to another dataset, the cursor to another list, or `q` does not fit the rest.
    """
    check_search(parameters)
    if parameters.order is Order.RELEVANCE and parameters.q is None:
        raise Mismatch(FieldError("needs_q", "Only a search has a relevance: send q too.", parameter="order"))
    texts = labelled_texts_query(parameters, labels, datasets, parameters.order)
    return PageQuery(texts, parameters.limit, position(parameters.cursor, texts.fingerprint))


def labelled_texts_query(
    filters: FilterParameters, labels: Sequence[str], datasets: Datasets, order: Order
) -> TextsQuery:
    """Return the query for the labelled texts that the filters leave, of these labels or of all.

    Raises:
        InvalidFields: the dataset or a label is not known; each is named.
        Mismatch: a label belongs to another dataset.
    """
    dataset = choose_dataset(filters.dataset, labels, datasets)
    _check_labels("label", labels, dataset, datasets)
    if filters.predicted_label is not None:
        _check_labels("predicted_label", [filters.predicted_label], dataset, datasets)
    return TextsQuery(dataset, tuple(sorted(set(labels))), filters, order)


def check_search(filters: FilterParameters) -> None:
    """Check that `q` and `match` go together.

    Raises:
        Mismatch: they do not.
    """
    if filters.q is None:
        if filters.match is not Match.SUBSTRING:  # the default says nothing
            raise Mismatch(FieldError("needs_q", "Says how to look for q: send q too.", parameter="match"))
    elif filters.match is not Match.SUBSTRING:
        words = len(filters.q.split())
        if not 1 <= words <= MAX_WORDS:
            detail = f"Holds {words} words; with match={filters.match} it must be 1 to {MAX_WORDS}."
            raise Mismatch(FieldError("words", detail, parameter="q"))


def agreement_query(parameters: AgreementParameters, datasets: Datasets) -> AgreementQuery:
    """Return the query for the agreement of annotators.

    Raises:
        InvalidFields: the dataset is not known.
    """
    pair = sorted(parameters.annotator)
    return AgreementQuery(texts_query(parameters, datasets), (pair[0], pair[1]) if pair else None)


def disputed_query(parameters: DisputedParameters, datasets: Datasets) -> DisputedQuery:
    """Return the query for the texts that need a decision.

    Raises:
        InvalidFields: the dataset is not known.
        Mismatch: the cursor belongs to another list.
    """
    texts, below = texts_query(parameters, datasets), parameters.confidence_below
    after = position(parameters.cursor, _disputed_fingerprint(texts, below))
    return DisputedQuery(texts, below, parameters.limit, after)


def texts_query(parameters: SourceParameters, datasets: Datasets) -> TextsQuery:
    """Return the query for all labelled texts that the parameters leave.

    Raises:
        InvalidFields: the dataset is not known.
    """
    given = parameters.model_dump(include=set(PeriodParameters.model_fields))
    dataset = choose_dataset(parameters.dataset, (), datasets)
    return TextsQuery(dataset, (), FilterParameters.model_validate(given), Order.NEWEST)


def position(given: str | None, query: bytes) -> Position | None:
    """Return the position that a parameter `cursor` holds in the list that `query` identifies.

    Raises:
        Mismatch: the cursor belongs to another list.
    """
    try:
        return cursor.decode(given, query) if given else None
    except ValueError as error:
        detail = "Not a cursor of this list: pass next_cursor unchanged, with the same filters and order."
        raise Mismatch(FieldError("invalid_cursor", detail, parameter="cursor")) from error


def _disputed_fingerprint(texts: TextsQuery, confidence_below: float) -> bytes:
    return hashlib.sha256(f"disputed, complete first {confidence_below} ".encode() + texts.fingerprint).digest()


def _check_labels(parameter: str, labels: Sequence[str], dataset: str, datasets: Datasets) -> None:
    known = datasets[dataset].labels
    errors = {label: _unknown(parameter, label, known) for label in labels if label not in known}
    elsewhere = {label for other in datasets.values() for label in other.labels}
    if errors.keys() - elsewhere:
        raise InvalidFields(list(errors.values()))
    for error in errors.values():
        raise Mismatch(error)


def choose_dataset(asked: str | None, labels: Sequence[str], datasets: Datasets) -> str:
    """Return the dataset asked for; without one the default, or the first that has all the labels.

    Raises:
        InvalidFields: there is no dataset of this name.
        DatasetNotAllowed: the request's key is limited to others.
    """
    if asked is not None and asked not in datasets:
        raise InvalidFields([_unknown("dataset", asked, tuple(datasets))])
    by_preference = sorted(datasets, key=lambda name: name != DEFAULT_DATASET)
    fitting = [name for name in by_preference if set(labels) <= set(datasets[name].labels)]
    chosen = asked or (fitting or by_preference)[0]
    require_dataset_allowed(chosen)
    return chosen


def _unknown(parameter: str, value: str, known: Sequence[str]) -> FieldError:
    return FieldError(f"unknown_{parameter}", f"{value!r} is not one of: {', '.join(known)}.", parameter=parameter)


Condition = tuple[str, list[Any]]

# Filters without totals.
_UNCOUNTED = set(FilterParameters.model_fields) - {"dataset", "match", *KINDS}


def conditions(query: TextsQuery) -> Condition:
    """Return the WHERE clause over `items` and its values."""
    filters = query.filters
    found: list[Condition] = [("dataset = ?", [query.dataset])]
    if query.labels:
        found.append((f"label in ({', '.join('?' * len(query.labels))})", list(query.labels)))
    comparisons = {
        "source = ?": filters.source,
        "language = ?": filters.language,
        "status = ?": filters.status,
        "complete = ?": filters.complete,
        "agreement >= ?": filters.min_agreement,
        "annotations >= ?": filters.min_annotations,
        "predicted_label = ?": filters.predicted_label,
        "labelled_at > ?": filters.labelled_after,
        "labelled_at < ?": filters.labelled_before,
    }
    found += [(sql, [value]) for sql, value in comparisons.items() if value is not None]
    if filters.annotator is not None:
        name = f"{SEPARATOR}{filters.annotator}{SEPARATOR}"
        found.append(("contains(annotators, ?)", [name]))
    if filters.q is not None:
        found.append(query.search.condition())
    return all_of(found)


def kind_conditions(query: TextsQuery) -> Condition:
    """Return the WHERE clause over `totals` of the texts that the query's kind holds, and its values."""
    kinds = query.filters.model_dump(include={"source", "language", "status", "complete"})
    return conditions(replace(query, filters=FilterParameters.model_construct(**kinds)))


def is_counted(query: TextsQuery) -> bool:
    """Whether the query asks for all texts of a kind, so that their number is known."""
    return not query.filters.model_dump(include=_UNCOUNTED, exclude_none=True)


def page_conditions(page: PageQuery) -> Condition:
    """Return the WHERE clause of what comes after the page's position."""
    found = [conditions(page.texts)]
    if page.after:
        before, behind = ("<", ">") if page.texts.order is Order.NEWEST else (">", "<")
        # The first half says nothing new, but DuckDB skips row groups by it.
        sql = f"labelled_at {before}= ? and (labelled_at {before} ? or id {behind} ?)"
        labelled_at = cursor.timestamp(page.after.rank)
        found.append((sql, [labelled_at, labelled_at, page.after.id]))
    return all_of(found)


# The rank of a text that needs a decision: complete texts above all others; among either, disputes by their
# number of annotations, then labels by how far they are from certain, in millionths. All disputes are above two
# millions, and all of this is below 10^16.
URGENCY = f"""
    (if(complete, 10000000000000000, 0) +
     case when status = '{LabelStatus.DISPUTED}' then (1 + annotations::bigint) * 1000000
     else ((1 - confidence) * 1000000)::bigint end)
"""


def disputed_conditions(query: DisputedQuery) -> Condition:
    """Return the WHERE clause of texts that need a decision and come after the query's position."""
    found = [conditions(query.texts)]
    undecided = "status = ? or (decided_by = ? and confidence < ?)"
    found.append(
        (f"({undecided})", [LabelStatus.DISPUTED.value, Decider.ANNOTATORS.value, query.confidence_below])
    )
    if query.after:
        found.append(
            (
                f"({URGENCY} < ? or ({URGENCY} = ? and id > ?))",
                [query.after.rank, query.after.rank, query.after.id],
            )
        )
    return all_of(found)


def said_by_annotators(dataset: str) -> Condition:
    """Return the WHERE clause over `annotations` of what annotators, not adjudicators, say about a dataset."""
    return "dataset = ? and role = ?", [dataset, Role.ANNOTATOR.value]


def annotator_conditions(query: TextsQuery) -> Condition:
    """Return the WHERE clause over `annotations` of what annotators, not adjudicators, say about these texts."""
    found = [said_by_annotators(query.dataset)]
    if query.labels or query.filters.model_dump(exclude_none=True, exclude={"dataset", "match"}):
        where, values = conditions(query)
        found.append((f"text_id in (select id from items where {where})", values))  # noqa: S608
    return all_of(found)


def ordering(order: Order) -> str:
    """Return the ORDER BY clause; the id decides between texts labelled in the same microsecond."""
    return "labelled_at desc, id" if order is Order.NEWEST else "labelled_at, id desc"


def all_of(found: list[Condition]) -> Condition:
    """Return the WHERE clause of what fits all of these."""
    return " and ".join(sql for sql, _ in found) or "true", [value for _, values in found for value in values]
