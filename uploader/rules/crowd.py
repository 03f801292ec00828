"""Estimates a dataset's label rule from all of its submitted answers, with crowd-kit.

`estimate_dataset` runs in a separate process (`anyio.to_process`): it keeps a core busy for seconds to minutes. It
estimates the annotators; labels follow from that by `core/labels/rules.py`, for old and new answers alike. See
docs/decisions/0023-label-rules.md.
"""

import warnings
from array import array
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any
from uuid import UUID

import numpy as np
import numpy.typing as npt
import psycopg
from pydantic import ValidationError

from core.connections import connect_in_thread
from core.datasets import Dataset, LabelRule
from core.labels.rules import (
    TOLERANCE,
    Abilities,
    Answer,
    Confusions,
    Outcome,
    RuleInForce,
    half_knowing,
    load_parameters,
)
from core.models import Decider
from core.settings import DatabaseSettings
from core.startup import step_back
from uploader.rules import repository

Floats = npt.NDArray[np.float64]

# Prior: this many answers of the average annotator are added to an annotator's own, for each true label.
# Without it, crowd-kit trusts an annotator who answered once completely.
_PRIOR_ANSWERS = 1.0
_LEAST = 1e-10
# GLAD takes 2 to 4 ms for each answer. This many texts suffice to estimate abilities. Ids are hashes, so the first
# ones are a random sample.
GLAD_TEXTS = 10_000
# It has converged by then. Its own stopping rule compares a mean with a sum, and may stop after two steps.
GLAD_STEPS = 10


class NoEstimate(Exception):
    """The library made nothing of these answers."""


@dataclass
class AnswerTable:
    """Submitted answers in 12 bytes each, numbers standing for texts, annotators and labels.

    The numbers are in the order of first appearance, within any number of first texts, too: crowd-kit's MACE takes
    its counts of annotators and labels in their sorted order for those in the order of appearance.
    """

    annotators: dict[str, int] = field(default_factory=dict)
    labels: dict[str, int] = field(default_factory=dict)
    columns: tuple["array[int]", "array[int]", "array[int]"] = field(
        default_factory=lambda: (array("i"), array("i"), array("i"))
    )
    texts: int = 0

    def add(self, answers: Iterable[Answer]) -> None:
        """Add the answers to one more text."""
        tasks, workers, labels = self.columns
        for annotator, value in answers:
            tasks.append(self.texts)
            workers.append(self.annotators.setdefault(annotator, len(self.annotators)))
            labels.append(self.labels.setdefault(value, len(self.labels)))
        self.texts += 1


def estimate(rule: LabelRule, answers: AnswerTable, labels: Sequence[str]) -> Confusions | Abilities | None:
    """Estimate the annotators of a dataset; `labels` are those that may be chosen. A majority needs no estimate.

    Raises:
        NoEstimate: what came out is no number.
    """
    if rule == LabelRule.MAJORITY:
        return None
    all_labels = [*answers.labels, *(label for label in labels if label not in answers.labels)]
    work = _ESTIMATES[rule]
    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")  # of divisions, and of what later versions of pandas will not take
            return work(answers, all_labels)
    except ValidationError as error:
        raise NoEstimate(f"{rule}: the estimate is out of range") from error


def _estimate_dawid_skene(answers: AnswerTable, labels: list[str]) -> Confusions:
    from crowdkit.aggregation import DawidSkene

    size = len(labels)
    counts = np.zeros((len(answers.annotators), size, size))
    totals = np.zeros(size)
    if answers.texts:
        tasks, workers, values = (np.asarray(column) for column in answers.columns)
        model = DawidSkene().fit(_to_frame(answers))
        probabilities = _align(model.probas_, answers.texts, size)
        totals = probabilities.sum(axis=0)
        np.add.at(counts.transpose(0, 2, 1), (workers, values), probabilities[tasks])
    average = _smooth(counts.sum(axis=0), np.array(half_knowing(size)))
    matrices = _smooth(counts, average)
    priors = (totals + 1) / (totals + 1).sum()
    return _to_confusions(answers, labels, priors, matrices, average)


def _estimate_mace(answers: AnswerTable, labels: list[str]) -> Confusions:
    from crowdkit.aggregation import MACE

    size = len(labels)
    matrices, average = np.zeros((0, size, size)), np.array(half_knowing(size))
    if answers.texts and len(answers.labels) > 1:
        # Every restart begins with the same numbers: one is as good as ten.
        model = MACE(n_restarts=1).fit(_to_frame(answers))
        # A label without answers is guessed as rarely as the rarest one.
        missing = ((0, 0), (0, size - len(answers.labels)))
        guesses = model.spamming_[:, :1] * np.pad(model.thetas_, missing, mode="minimum")
        matrices = guesses[:, None, :] + model.spamming_[:, 1:, None] * np.eye(size)
        matrices = matrices.clip(_LEAST)
        # Divides all of an annotator's rows by the same, which weighs nothing.
        matrices /= matrices.sum(axis=2, keepdims=True)
        weights = np.bincount(np.asarray(answers.columns[1]), minlength=len(matrices))
        average = np.average(matrices, axis=0, weights=weights)
    return _to_confusions(answers, labels, np.full(size, 1 / size), matrices, average)


def _estimate_glad(answers: AnswerTable, labels: list[str]) -> Abilities:
    import pandas as pd
    from crowdkit.aggregation import GLAD

    if len(answers.labels) < 2:
        return Abilities(labels=tuple(labels), abilities={}, average=1, easiness=1)
    frame = _to_frame(answers)
    frame = frame[frame["task"] < GLAD_TEXTS]
    size = len(labels)
    priors = pd.Series(np.full(size, 1 / size), index=range(size))
    model = GLAD(n_iter=GLAD_STEPS, tol=-np.inf, labels_priors=priors).fit(frame)
    counts = frame["worker"].value_counts()
    return Abilities(
        labels=tuple(labels),
        abilities={name: float(model.alphas_[n]) for name, n in answers.annotators.items() if n in counts},
        average=float((model.alphas_ * counts).sum() / counts.sum()),
        easiness=1,
    )


_ESTIMATES: dict[LabelRule, Callable[[AnswerTable, list[str]], Confusions | Abilities]] = {
    LabelRule.DAWID_SKENE: _estimate_dawid_skene,
    LabelRule.MACE: _estimate_mace,
    LabelRule.GLAD: _estimate_glad,
}


def _to_frame(answers: AnswerTable) -> Any:
    import pandas as pd

    return pd.DataFrame(dict(zip(("task", "worker", "label"), map(np.asarray, answers.columns), strict=True)))


def _align(probabilities: Any, texts: int, size: int) -> Floats:
    """Return a frame of probabilities with a row for each text and a column for each label."""
    return np.asarray(probabilities.reindex(index=range(texts), columns=range(size), fill_value=0.0), dtype=float)


def _smooth(counts: Floats, prior: Floats) -> Floats:
    """Return frequencies of answers by true label, with a few answers of `prior` added to the counted ones."""
    rows = counts + _PRIOR_ANSWERS * prior
    return np.asarray(rows / rows.sum(axis=-1, keepdims=True))


def _to_confusions(
    answers: AnswerTable, labels: list[str], priors: Floats, matrices: Floats, average: Floats
) -> Confusions:
    names = [name for name, _ in zip(answers.annotators, matrices, strict=False)]
    return Confusions.model_validate(
        {
            "labels": labels,
            "priors": priors.tolist(),
            "matrices": dict(zip(names, matrices.tolist(), strict=True)),
            "average": average.tolist(),
        }
    )


@dataclass(frozen=True, slots=True)
class RuleEstimate:
    """The result of an estimate, in values that can be sent between processes."""

    is_new: bool  # else these answers were estimated before
    parameters: dict[str, Any] | None  # of a majority, none
    answers: str  # digest of rule and answers
    seen_xid: str  # transactions from this one on may have changed answers that were not read
    annotators: int
    texts: int
    to_rewrite: list[UUID]  # texts whose label is not what the rule says


def estimate_dataset(dataset: str, definition: Dataset, database: DatabaseSettings) -> RuleEstimate:
    """Estimate the rule of a dataset from all of its submitted answers, unless that was done with the same ones.

    Raises:
        NoEstimate: the library made nothing of these answers.
        psycopg.Error: Postgres is away.
    """
    step_back()
    with connect_in_thread(database, "uploader estimation") as connection:
        # A second pass is cheaper than to keep all answers. If labels changed in between, their transactions are
        # later than `seen_xid`, so there is another look.
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        held = repository.get_held(connection, dataset)
        answers, digest = _read_answers(connection, dataset, definition)
        # An estimate may take minutes, and Postgres ends a transaction that is idle for one.
        connection.commit()
        is_new = digest != held.rule_answers
        if is_new:
            parameters = estimate(definition.label_rule, answers, definition.labels)
        else:
            parameters = held.rule_parameters and load_parameters(held.rule_parameters)
        rule = RuleInForce(definition.label_rule, held.rule_version + is_new, parameters)
        to_rewrite = [
            row.text_id for row in repository.read_answers(connection, dataset) if _is_to_change(row, rule)
        ]
    return RuleEstimate(
        is_new,
        None if parameters is None else parameters.model_dump(mode="json"),
        digest,
        held.seen_xid,
        len(answers.annotators),
        answers.texts,
        to_rewrite,
    )


def _read_answers(connection: psycopg.Connection, dataset: str, definition: Dataset) -> tuple[AnswerTable, str]:
    answers = AnswerTable()
    digest = blake2b(repr((definition.label_rule.value, definition.labels)).encode(), digest_size=16)
    for row in repository.read_answers(connection, dataset):
        given = list(zip(row.annotators, row.values, strict=True))
        digest.update(repr((row.text_id.bytes, given)).encode())
        answers.add(given)
    return answers, digest.hexdigest()


def _is_to_change(row: Any, rule: RuleInForce) -> bool:
    outcome = rule.label(list(zip(row.annotators, row.values, strict=True)))
    if row.rule != outcome.rule:
        return True
    # What adjudicators decided stays, whatever the annotators' answers weigh.
    return row.decided_by == Decider.ANNOTATORS and _differs(row, outcome)


def _differs(row: Any, outcome: Outcome) -> bool:
    if (row.status, row.label) != (outcome.status, outcome.label):
        return True
    if outcome.confidence is None or row.confidence is None:
        return bool(outcome.confidence != row.confidence)
    return bool(abs(row.confidence - outcome.confidence) > TOLERANCE)
