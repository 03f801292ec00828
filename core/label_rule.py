"""How annotations add up to a label: the majority; a tie is disputed; adjudicators decide disputes."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace

from core.datasets import LabelRule
from core.models import Decider, LabelStatus


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the submitted annotations of one text say together."""

    status: LabelStatus
    label: str | None
    agreement: float | None  # share of the most frequent label, 0..1; None without annotations
    votes: dict[str, int]  # submitted annotations by label
    annotations: int  # submitted annotations
    confidence: float | None = None  # probability of the label, by the rule; of a majority its agreement
    rule: LabelRule = LabelRule.MAJORITY
    rule_version: int = 1
    decided_by: Decider = Decider.ANNOTATORS


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
    return replace(
        outcome,
        status=LabelStatus.LABELLED,
        label=decision.label,
        agreement=outcome.votes.get(decision.label, 0) / outcome.annotations,
        confidence=decision.agreement,
        decided_by=Decider.ADJUDICATORS,
    )
