"""The differences between the versions that a user sees, and the labelled texts that both serve."""

from collections import Counter
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

from load_testing.users.checks import Answer, check_stored, expect
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


Rows = list[dict[str, Any]]


class Version(NamedTuple):
    """The requests and the responses of a version."""

    # The path of all labelled texts ("all"), and of each label.
    reads: dict[str, str]
    # Checks the response to a new text: status code, response, text.
    check_stored: Callable[[int, Answer, str], None]
    # Returns the texts with their labels from a response.
    rows_of: Callable[[Any], Rows]


def _check_version_1(status: int, answer: Answer, _: str) -> None:
    expect("status code", status, 201)
    expect("processed, failed", (answer["processed"], answer["failed"]), (1, 0))


VERSIONS = {
    "1": Version(
        reads={"all": "/texts", "toxic": "/toxic_texts", "non_toxic": "/non_toxic_texts"},
        check_stored=_check_version_1,
        rows_of=list,
    ),
    "2": Version(
        reads={
            # Version 1 has no pages: it returns all texts.
            "all": f"/texts?limit={EACH * len(LABELS)}",
            "toxic": f"/toxic_texts?limit={EACH}",
            "non_toxic": f"/non_toxic_texts?limit={EACH}",
        },
        check_stored=check_stored,
        rows_of=lambda answer: list(answer["items"]),
    ),
}
