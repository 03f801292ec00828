"""The labelled texts that both versions serve: 100 toxic ones and 100 that are not."""

from collections import Counter
from functools import cache

from load_testing.users.comment_texts import submission

EACH = 100
LABELS = ("toxic", "non_toxic")
_SEED = "labelled"


@cache
def labelled_texts() -> tuple[tuple[str, str], ...]:
    """Return (text, label), the same each time."""
    found: list[tuple[str, str]] = []
    counts: Counter[str] = Counter()
    number = 0
    while len(found) < EACH * len(LABELS):
        made = submission(_SEED, number)
        number += 1
        label = made.get("label")
        if label and counts[label] < EACH:
            counts[label] += 1
            found.append((made["text"], label))
    return tuple(found)
