"""How annotations add up to a label: by majority or an estimated rule; a tie is disputed; adjudicators decide."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from core.datasets import LabelRule
from core.labels.estimated_rules import Abilities, Answer, Confusions
from core.models import Decider, LabelStatus

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
    """A dataset's label rule, with what was estimated for it. A majority needs nothing, and has one version."""

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
    """Return what is left of `outcome` when adjudicators have submitted these values: they decide.

    Votes and agreement stay those of the annotators. Adjudicators who are divided decide nothing.
    """
    decision = majority(decisions)
    if decision.label is None or outcome.status == LabelStatus.WITHDRAWN:
        return outcome
    return outcome.with_label(decision.label, decision.agreement, Decider.ADJUDICATORS)
