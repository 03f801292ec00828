"""How annotations add up to a label: by majority or by an estimated rule. Pure functions."""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, TypeAdapter

from core.datasets import LabelRule
from core.models import Decider, LabelStatus

Answer = tuple[str, str]  # annotator, value
Probability = Annotated[float, Field(gt=0, le=1)]
Matrix = tuple[tuple[Probability, ...], ...]  # by true label, then by answer: each row sums up to 1

# A text's easiness moves by one at most in a step, and has settled when it moves less than this.
_SETTLED = 1e-6
_MOST_STEPS = 50


class Confusions(BaseModel):
    """How often each annotator takes one label for another: what Dawid-Skene and MACE estimate."""

    model_config = ConfigDict(frozen=True)

    kind: Literal["confusions"] = "confusions"
    labels: tuple[str, ...]
    priors: tuple[Probability, ...]  # how frequent the labels are
    matrices: dict[str, Matrix]  # by annotator
    average: Matrix  # of an annotator of whom nothing is known

    def weigh(self, answers: Iterable[Answer]) -> dict[str, float]:
        """Return the probability of each label; all values of the answers must be among the labels."""
        scores = [math.log(prior) for prior in self.priors]
        # In one order: so that the last digits do not depend on how the answers came.
        for annotator, value in sorted(answers):
            matrix, column = self.matrices.get(annotator, self.average), self.labels.index(value)
            scores = [score + math.log(row[column]) for score, row in zip(scores, matrix, strict=True)]
        return dict(zip(self.labels, _to_probabilities(scores), strict=True))


class Abilities(BaseModel):
    """How able each annotator is: what GLAD estimates. How easy a text is follows from its answers.

    An annotator is right with the probability 1 / (1 + exp(-ability * exp(easiness))).
    """

    model_config = ConfigDict(frozen=True)

    kind: Literal["abilities"] = "abilities"
    labels: tuple[str, ...]
    abilities: dict[str, FiniteFloat]  # by annotator; below 0, they are wrong more often than right
    average: FiniteFloat  # of an annotator of whom nothing is known
    easiness: FiniteFloat  # of a text without answers; the deviation from it is 1

    def weigh(self, answers: Iterable[Answer]) -> dict[str, float]:
        """Return the probability of each label; all values of the answers must be among the labels."""
        known = [(self.abilities.get(a, self.average), self.labels.index(value)) for a, value in sorted(answers)]
        easiness = self.easiness
        for _ in range(_MOST_STEPS):
            probabilities = self._weigh(known, easiness)
            step = self._step(known, easiness, probabilities)
            if abs(step) < _SETTLED:
                break
            easiness += step
        return dict(zip(self.labels, probabilities, strict=True))

    def _weigh(self, known: Sequence[tuple[float, int]], easiness: float) -> list[float]:
        scores = [0.0] * len(self.labels)
        for ability, column in known:
            evidence = ability * math.exp(easiness)
            # Of being right, over one certain wrong answer.
            scores[column] += evidence + math.log(max(len(self.labels) - 1, 1))
        return _to_probabilities(scores)

    def _step(self, known: Sequence[tuple[float, int]], easiness: float, probabilities: list[float]) -> float:
        """Return one step of scoring towards the likeliest easiness."""
        slope, curvature = self.easiness - easiness, 1.0
        for ability, column in known:
            evidence = ability * math.exp(easiness)
            right = _sigmoid(evidence)
            slope += (probabilities[column] - right) * evidence
            curvature += right * (1 - right) * evidence**2
        return max(-1.0, min(1.0, slope / curvature))


Parameters = Annotated[Confusions | Abilities, Field(discriminator="kind")]
_PARAMETERS: TypeAdapter[Confusions | Abilities] = TypeAdapter(Parameters)


def load_parameters(stored: dict[str, Any]) -> Confusions | Abilities:
    """Read parameters as `model_dump(mode="json")` wrote them."""
    return _PARAMETERS.validate_python(stored)


def half_knowing(labels: int) -> Matrix:
    """Return the matrix of an annotator who knows half of the answers, and guesses the others."""
    return tuple(
        tuple(0.5 * (truth == answer) + 0.5 / labels for answer in range(labels)) for truth in range(labels)
    )


def _to_probabilities(scores: Sequence[float]) -> list[float]:
    most = max(scores)
    weights = [math.exp(score - most) for score in scores]
    total = math.fsum(weights)
    return [weight / total for weight in weights]


def _sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x > -700 else 0.0


# Probabilities nearer than this are the same: the two likeliest labels of a text, or one label's by two estimates.
TOLERANCE = 0.01


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the submitted annotations of one text say together."""

    status: LabelStatus
    label: str | None
    agreement: float | None  # share of the label, in a dispute of the most frequent one; None: no annotations
    votes: dict[str, int]  # submitted annotations by label
    annotations: int  # submitted annotations
    confidence: float | None = None  # probability of the label, by the rule; of a majority its agreement
    rule: LabelRule = LabelRule.MAJORITY
    rule_version: int = 1
    decided_by: Decider = Decider.ANNOTATORS

    def with_label(self, label: str, confidence: float | None, decided_by: Decider) -> "Outcome":
        """Return the outcome of the same votes, one at least, with a label that follows otherwise."""
        agreement = self.votes.get(label, 0) / self.annotations
        decided = replace(self, status=LabelStatus.LABELLED, label=label, agreement=agreement)
        return replace(decided, confidence=confidence, decided_by=decided_by)


@dataclass(frozen=True, slots=True)
class RuleInForce:
    """A dataset's label rule with its estimated parameters. A majority has none, and one version."""

    rule: LabelRule = LabelRule.MAJORITY
    version: int = 1
    parameters: Confusions | Abilities | None = None

    def label(self, answers: Sequence[Answer]) -> Outcome:
        """Return what these submitted answers say together.

        Where one names a label that the estimate does not know, the majority decides until the next estimate.
        """
        outcome = majority(value for _, value in answers)
        if not answers or self.parameters is None or not outcome.votes.keys() <= set(self.parameters.labels):
            return outcome
        likeliest = sorted(self.parameters.weigh(answers).items(), key=lambda item: -item[1])
        label, confidence = likeliest[0]
        outcome = replace(outcome, rule=self.rule, rule_version=self.version)
        if len(likeliest) > 1 and confidence - likeliest[1][1] < TOLERANCE:
            return replace(outcome, status=LabelStatus.DISPUTED, label=None, confidence=None)
        return outcome.with_label(label, confidence, Decider.ANNOTATORS)


def majority(submitted: Iterable[str]) -> Outcome:
    """Return the label that most of the `submitted` values name.

    A tie of the most frequent ones is disputed and has no label; nothing submitted is withdrawn.
    """
    votes = Counter(submitted)
    if not votes:
        return Outcome(LabelStatus.WITHDRAWN, None, None, {}, 0)
    most = max(votes.values())
    winners = [label for label, count in votes.items() if count == most]
    agreement, counts = most / votes.total(), dict(sorted(votes.items()))
    if len(winners) > 1:
        return Outcome(LabelStatus.DISPUTED, None, agreement, counts, votes.total())
    return Outcome(LabelStatus.LABELLED, winners[0], agreement, counts, votes.total(), confidence=agreement)


def adjudicate(outcome: Outcome, decisions: Iterable[str]) -> Outcome:
    """Return the outcome after adjudicators submitted these values: they decide.

    Votes and agreement stay those of the annotators. Adjudicators who are divided decide nothing.
    """
    decision = majority(decisions)
    if decision.label is None or outcome.status == LabelStatus.WITHDRAWN:
        return outcome
    return outcome.with_label(decision.label, decision.agreement, Decider.ADJUDICATORS)
