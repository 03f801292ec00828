"""Queries of labelled texts, made from checked parameters and cursors."""

import hashlib
import struct
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from functools import cached_property
from uuid import UUID

from core.datasets import DEFAULT_DATASET, Datasets
from core.web.keys import require_dataset_allowed
from core.web.problems import Conflict, FieldError, InvalidFields
from serving_api.texts.matching import MAX_WORDS, Match, Search
from serving_api.texts.parameters import (
    FilterParameters,
    Order,
    PageParameters,
    PeriodParameters,
    RankedParameters,
    SourceParameters,
)

_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 - the replica holds UTC without a zone
_MICROSECOND = timedelta(microseconds=1)
_POSITION = struct.Struct(">q16s")
_CHECK_BYTES = 8


@dataclass(frozen=True, slots=True)
class Position:
    """The last item that was shown."""

    rank: int  # the sort key of the list: `microseconds` of a timestamp, or as its query defines it
    id: UUID


def microseconds(timestamp: datetime) -> int:
    """Return a timestamp, UTC without a zone, as microseconds since 1970."""
    return (timestamp - _EPOCH) // _MICROSECOND


def timestamp(microseconds: int) -> datetime:
    """Return the timestamp, UTC without a zone, `microseconds` after 1970."""
    return _EPOCH + microseconds * _MICROSECOND


def encode_cursor(position: Position, query: bytes) -> str:
    """Return the cursor for the items after `position` in the list that `query` identifies."""
    packed = _POSITION.pack(position.rank, position.id.bytes)
    return urlsafe_b64encode(packed + _check(packed, query)).decode().rstrip("=")


def decode_cursor(cursor: str, query: bytes) -> Position:
    """Return the position that `cursor` holds.

    Raises:
        ValueError: it was not made by this API, was changed, or belongs to another list.
    """
    raw = urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
    packed, check = raw[: _POSITION.size], raw[_POSITION.size :]
    if len(packed) != _POSITION.size or check != _check(packed, query):
        raise ValueError("not a cursor of this list")
    rank, id_bytes = _POSITION.unpack(packed)
    return Position(rank, UUID(bytes=id_bytes))


def _check(packed: bytes, query: bytes) -> bytes:
    return hashlib.sha256(packed + query).digest()[:_CHECK_BYTES]


class Mismatch(Conflict):
    """A valid parameter contradicts other parameters."""

    def __init__(self, parameter: str, code: str, detail: str) -> None:
        super().__init__(detail, code=code)
        self.extra = {"errors": [FieldError(code, detail, parameter=parameter).as_dict()]}


NOT_OF_THIS_LIST = "Not a cursor of this list: pass next_cursor unchanged, with the same filters and order."


@dataclass(frozen=True)
class TextsQuery:
    """Selects labelled texts, and their order."""

    dataset: str
    labels: tuple[str, ...]  # none: all of them, disputed texts too
    filters: FilterParameters
    order: Order

    @cached_property
    def search(self) -> Search:
        """The search for `q`, if it is given."""
        return Search(self.filters.q or "", self.filters.match)

    @cached_property
    def fingerprint(self) -> bytes:
        """A hash that is equal for queries of the same list, and only for them."""
        # Without the filters that are not set: cursors stay valid when a release adds a filter.
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

    @property
    def fingerprint(self) -> bytes:
        """A hash that is equal for pages of the same list, and only for them."""
        return self.texts.fingerprint


class Ranking(StrEnum):
    """A list of texts that need attention, the most urgent first. The values are part of cursors."""

    DISPUTED = "disputed, complete first"
    SUSPECTS = "suspects"


@dataclass(frozen=True)
class RankedQuery:
    """One page of the texts that need attention."""

    ranking: Ranking
    texts: TextsQuery
    below: float  # of labels with less confidence (disputed texts) or less quality (suspects)
    limit: int
    after: Position | None = None

    @cached_property
    def fingerprint(self) -> bytes:
        """A hash that is equal for pages of the same list, and only for them."""
        return hashlib.sha256(f"{self.ranking} {self.below} ".encode() + self.texts.fingerprint).digest()


def page_query(parameters: PageParameters, labels: Sequence[str], datasets: Datasets) -> PageQuery:
    """Return the query of one page.

    Raises:
        InvalidFields: the dataset or a label is not known; each is named.
        Mismatch: a label belongs to another dataset, the cursor to another list, or `q` does not fit the rest.
    """
    check_search(parameters)
    if parameters.order is Order.RELEVANCE and parameters.q is None:
        raise Mismatch("order", "needs_q", "Only a search has a relevance: send q too.")
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
    """Check `q` and `match` together.

    Raises:
        Mismatch: `match` is given without `q`, or `q` has too many words for it.
    """
    if filters.q is None:
        if filters.match is not Match.SUBSTRING:  # the default says nothing
            raise Mismatch("match", "needs_q", "match says how to look for q: send q too.")
    elif filters.match is not Match.SUBSTRING:
        words = len(filters.q.split())
        if not 1 <= words <= MAX_WORDS:
            detail = f"q holds {words} words; with match={filters.match} it must hold 1 to {MAX_WORDS}."
            raise Mismatch("q", "words", detail)


def ranked_query(ranking: Ranking, parameters: RankedParameters, below: float, datasets: Datasets) -> RankedQuery:
    """Return the query for a page of the texts that need attention.

    Raises:
        InvalidFields: the dataset is not known.
        Mismatch: the cursor belongs to another list.
    """
    query = RankedQuery(ranking, texts_query(parameters, datasets), below, parameters.limit)
    return replace(query, after=position(parameters.cursor, query.fingerprint))


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
        return decode_cursor(given, query) if given else None
    except ValueError as error:
        raise Mismatch("cursor", "invalid_cursor", NOT_OF_THIS_LIST) from error


def _check_labels(parameter: str, labels: Sequence[str], dataset: str, datasets: Datasets) -> None:
    known = datasets[dataset].labels
    errors = {label: _unknown(parameter, label, known) for label in labels if label not in known}
    elsewhere = {label for other in datasets.values() for label in other.labels}
    if errors.keys() - elsewhere:
        raise InvalidFields(list(errors.values()))
    for error in errors.values():
        raise Mismatch(parameter, error.code, error.detail)


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
    detail = f"{parameter} {value!r} is not one of: {', '.join(known)}."
    return FieldError(f"unknown_{parameter}", detail, parameter=parameter)
