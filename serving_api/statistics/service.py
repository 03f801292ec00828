"""Statistics of annotators, computed from counts."""

from collections import Counter
from collections.abc import Iterable
from typing import Any

import duckdb

from serving_api.statistics import repository as queries
from serving_api.statistics.agreement import agreement, cohen_kappa, votes_of_pair
from serving_api.statistics.repository import AnnotatorWork, AnswerCount
from serving_api.texts.parameters import to_text
from serving_api.texts.query import AgreementQuery, TextsQuery

# Pairs of annotators in one answer at most.
PAIRS_MAX = 100

_MICROSECONDS_AN_HOUR = 3_600_000_000


def make_agreement(cursor: duckdb.DuckDBPyConnection, query: AgreementQuery) -> dict[str, Any]:
    """Return how far annotators agree: all of them, or one pair on the texts that both answered.

    Only submitted answers of annotators count, and texts with two or more of them.
    """
    if query.pair:
        cells = queries.count_pair(cursor, query.texts, query.pair)
        votes = votes_of_pair(cells)
        pairs, found = int(bool(cells)), {query.pair: cells}
    else:
        votes = queries.count_votes(cursor, query.texts)
        pairs, found = queries.count_pairs(cursor, query.texts, PAIRS_MAX)
    measured = agreement(votes)
    return {
        "dataset": query.texts.dataset,
        "krippendorff_alpha": measured.krippendorff_alpha.as_dict(),
        "fleiss_kappa": measured.fleiss_kappa.as_dict(),
        "observed_agreement": measured.observed_agreement.as_dict(),
        "cohen_kappa": [{"annotators": pair} | cohen_kappa(cells).as_dict() for pair, cells in found.items()],
        "pairs": pairs,
    }


def make_annotators(cursor: duckdb.DuckDBPyConnection, query: TextsQuery) -> dict[str, Any]:
    """Return each annotator's work, and how often their answers were the outcome."""
    said: dict[str, list[AnswerCount]] = {}
    for answer in queries.count_outcomes(cursor, query):
        said.setdefault(answer.annotator, []).append(answer)
    work = queries.list_work(cursor, query)
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
