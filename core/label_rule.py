"""How annotations add up to a label: the majority; a tie is disputed."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from core.models import LabelStatus


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the submitted annotations of one text say together."""

    status: LabelStatus
    label: str | None
    agreement: float | None  # share of the most frequent label, 0..1; None without annotations
    votes: dict[str, int]  # submitted annotations by label
    annotations: int  # submitted annotations


def majority(submitted: Iterable[str]) -> Outcome:
    """Return the label that most of the `submitted` values name.

    A tie of the most frequent ones is disputed and has no label; nothing submitted is withdrawn.
    """
    votes = Counter(submitted)
    if not votes:
        return Outcome(LabelStatus.WITHDRAWN, None, None, {}, 0)
    most = max(votes.values())
    winners = [label for label, count in votes.items() if count == most]
    status, label = (LabelStatus.LABELLED, winners[0]) if len(winners) == 1 else (LabelStatus.DISPUTED, None)
    return Outcome(status, label, most / votes.total(), dict(sorted(votes.items())), votes.total())
