"""Computes the bodies of statistics from counts."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from datetime import date
from typing import Any

import duckdb

from core.datasets import Dataset
from core.models import LabelStatus
from serving_api.statistics import repository
from serving_api.statistics.agreement import agreement, cohen_kappa, votes_of_pair
from serving_api.statistics.repository import FACETS, AnnotatorWork, AnswerCount, Counted
from serving_api.texts.parameters import to_text
from serving_api.texts.query import TextsQuery

_MICROSECONDS_AN_HOUR = 3_600_000_000


def make_stats(cursor: duckdb.DuckDBPyConnection, name: str, dataset: Dataset) -> dict[str, Any]:
    """Return the totals of a dataset."""
    by_label = dict.fromkeys(dataset.labels, 0) | repository.count_by(cursor, name, "label")
    by_label.pop(None, None)  # disputed texts: `by_status` counts them
    shown = (LabelStatus.LABELLED.value, LabelStatus.DISPUTED.value)
    by_status = dict.fromkeys(shown, 0) | repository.count_by(cursor, name, "status")
    by_source = repository.count_by(cursor, name, "source")
    without_source = by_source.pop(None, 0)
    return {
        "dataset": name,
        "total": sum(by_status.values()),
        "complete": repository.count_complete(cursor, name),
        "by_label": by_label,
        "by_status": by_status,
        "by_source": by_source,
        "without_source": without_source,
        "by_day": repository.count_by_day(cursor, name),
        "by_annotator": repository.count_by_annotator(cursor, name),
    }


def make_agreement(
    cursor: duckdb.DuckDBPyConnection, query: TextsQuery, pair: Sequence[str], most: int
) -> dict[str, Any]:
    """Return how far annotators agree: all of them, with up to `most` pairs, or `pair` on the texts of both.

    Only submitted answers of annotators count, and texts with two or more of them. An empty `pair` means all.
    """
    if pair:
        one, other = pair
        cells = repository.count_pair(cursor, query, (one, other))
        votes = votes_of_pair(cells)
        pairs, found = int(bool(cells)), {(one, other): cells}
    else:
        votes = repository.count_votes(cursor, query)
        pairs, found = None, {}
        if most:
            pairs, found = repository.count_pairs(cursor, query, most)
    return {
        "dataset": query.dataset,
        **asdict(agreement(votes)),
        "cohen_kappa": [{"annotators": pair} | asdict(cohen_kappa(cells)) for pair, cells in found.items()],
        "pairs": pairs,
    }


def make_annotators(cursor: duckdb.DuckDBPyConnection, query: TextsQuery) -> dict[str, Any]:
    """Return each annotator's work, and how often their answers were the outcome."""
    said: dict[str, list[AnswerCount]] = {}
    for answer in repository.count_outcomes(cursor, query):
        said.setdefault(answer.annotator, []).append(answer)
    work = repository.list_work(cursor, query)
    return {
        "dataset": query.dataset,
        "annotators": [_annotator(done, said.get(done.annotator, [])) for done in work],
    }


def _annotator(work: AnnotatorWork, said: list[AnswerCount]) -> dict[str, Any]:
    # A single answer always agrees with the outcome.
    shared = [answer for answer in said if answer.is_shared and answer.label is not None]
    gold = [answer for answer in said if answer.gold_label is not None]
    confusion: dict[str, Counter[str]] = {}
    for answer in shared:
        confusion.setdefault(str(answer.label), Counter())[answer.value] += answer.texts
    return {
        "annotator": work.annotator,
        "answers": work.answers,
        "discarded": work.discarded,
        "first_at": to_text(work.first_at),
        "last_at": to_text(work.last_at),
        "answers_per_hour": _pace(work),
        "agreement_with_outcome": _share((a.value == a.label, a.texts) for a in shared),
        "gold_accuracy": _share((a.value == a.gold_label, a.texts) for a in gold),
        "confusion": confusion,
    }


def _pace(work: AnnotatorWork) -> float | None:
    if not work.worked_microseconds:
        return None
    return round(work.steps * _MICROSECONDS_AN_HOUR / work.worked_microseconds, 3)


def _share(texts: Iterable[tuple[bool, int]]) -> dict[str, Any]:
    """Return the share of right ones among (is right, number of texts), and how many there are."""
    counts = Counter[bool]()
    for is_right, number in texts:
        counts[is_right] += number
    n = counts.total()
    return {"value": round(counts[True] / n, 6) if n else None, "n": n}


# The filter by which a facet's own value is chosen, where its name is another one.
_FILTERS = {"agreement": "min_agreement"}


def make_facets(cursor: duckdb.DuckDBPyConnection, query: TextsQuery) -> dict[str, Any]:
    """Return the counts of each filter's values among the texts that the other filters leave."""
    filtered = [facet for facet in FACETS if _without(query, facet) != query]
    found = repository.count_values(cursor, query, [facet for facet in FACETS if facet not in filtered])
    for facet in filtered:
        found |= repository.count_values(cursor, _without(query, facet), [facet])
    found["agreement"] = [(float(value), texts) for value, texts in found["agreement"] if value is not None]
    found["complete"] = [(value == "true", texts) for value, texts in found["complete"]]
    return {
        "dataset": query.dataset,
        "total": repository.count_texts(cursor, query),
        **{facet: _values(found[facet]) for facet in FACETS},
    }


def make_days(cursor: duckdb.DuckDBPyConnection, query: TextsQuery, days: int) -> dict[str, Any]:
    """Return the labels and answers of `days` days, up to the last one with a label."""
    found: dict[date, dict[str, Any]] = {}

    def on(day: date) -> dict[str, Any]:
        return found.setdefault(day, {"day": day, "labels": {}, "disputed": 0, "answers": {}})

    first, labels = repository.count_labels_by_day(cursor, query, days)
    for day, label, texts in labels:
        if label is None:
            on(day)["disputed"] = texts
        else:
            on(day)["labels"][label] = texts
    for day, annotator, answers in repository.count_answers_by_day(cursor, query, first) if first else ():
        on(day)["answers"][annotator] = answers
    return {"dataset": query.dataset, "days": [found[day] for day in sorted(found)]}


def _without(query: TextsQuery, facet: str) -> TextsQuery:
    """Return the query without the filter of a facet."""
    if facet == "label":
        return replace(query, labels=())
    name = _FILTERS.get(facet, facet)
    if getattr(query.filters, name) is None:
        return query
    return replace(query, filters=query.filters.model_copy(update={name: None}))


def _values(counted: Counted) -> list[dict[str, Any]]:
    return [{"value": value, "texts": texts} for value, texts in counted]
