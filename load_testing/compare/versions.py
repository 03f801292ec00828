"""All in which the two versions differ for a user: paths, and how an answer looks."""

from collections.abc import Callable
from typing import Any, NamedTuple

from load_testing.compare.labelled_texts import EACH, LABELS
from load_testing.users.answers import Answer, expect
from load_testing.users.ingestion_checks import check_stored

Rows = list[dict[str, Any]]


class Version(NamedTuple):
    """How a version is asked, and what it answers."""

    # What is read, and its path: all that is labelled ("all"), and by label.
    reads: dict[str, str]
    # Checks the answer to a text that is sent for the first time: status code, answer, text.
    check_stored: Callable[[int, Answer, str], None]
    # Takes the texts with their labels out of an answer.
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
            # Version 1 has no pages: it answers with all.
            "all": f"/texts?limit={EACH * len(LABELS)}",
            "toxic": f"/toxic_texts?limit={EACH}",
            "non_toxic": f"/non_toxic_texts?limit={EACH}",
        },
        check_stored=check_stored,
        rows_of=lambda answer: list(answer["items"]),
    ),
}
