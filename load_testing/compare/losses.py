"""What became of the texts: what was sent and acknowledged against what is there in the end."""

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple

from load_testing.users.comment_texts import submission


class Sent(NamedTuple):
    """The texts of one run, which follow from its seed and their numbers, and those of them with a 2xx."""

    seed: str
    sent: Sequence[int]
    acknowledged: Sequence[int]


class Fate(NamedTuple):
    """Numbers of texts. `stored` is Argilla's part, `in_postgres` version 2's."""

    sent: int
    acknowledged: int
    stored: int
    in_postgres: int
    # Acknowledged, and not in Argilla.
    lost: int
    # Sent, not acknowledged, and not in Argilla: gone, unless the client sends them again.
    failed: int
    # Not acknowledged, and in Argilla all the same: a client that sends again may double them.
    stored_unnoticed: int
    # In Argilla more than once.
    doubled: int


def fate_of(runs: Iterable[Sent], argilla: Collection[str], postgres: Collection[str]) -> Fate:
    """Count what became of the texts of these runs; `argilla` and `postgres` are all texts that they hold.

    Raises:
        ValueError: a number was acknowledged that was not sent.
    """
    sent: set[str] = set()
    acknowledged: set[str] = set()
    for run in runs:
        texts = {number: submission(run.seed, number)["text"] for number in run.sent}
        if not texts.keys() >= set(run.acknowledged):
            raise ValueError(f"of the run {run.seed} more was acknowledged than was sent")
        sent.update(texts.values())
        acknowledged.update(texts[number] for number in run.acknowledged)
    times = Counter(text for text in argilla if text in sent)
    stored = times.keys()
    return Fate(
        sent=len(sent),
        acknowledged=len(acknowledged),
        stored=len(stored),
        in_postgres=len(sent.intersection(postgres)),
        lost=len(acknowledged - stored),
        failed=len(sent - acknowledged - stored),
        stored_unnoticed=len(stored - acknowledged),
        doubled=sum(count > 1 for count in times.values()),
    )
