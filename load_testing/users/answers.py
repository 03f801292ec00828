"""What is the same in the checks of both APIs: a wrong answer, and how it is told."""

from collections.abc import Mapping
from typing import Any


class WrongAnswer(Exception):
    """An answer whose content is not what the API promises."""


def expect(name: str, got: object, wanted: object) -> None:
    """Hold a part of an answer against what it must be.

    Raises:
        WrongAnswer: they differ.
    """
    if got != wanted:
        raise WrongAnswer(f"{name} is {got!r:.100}, not {wanted!r:.100}")


# How a failure begins that is none: the API is full, and says when to come again.
REFUSED = "refused: "
_FULL = {429, 503}


def is_refused(status: int, headers: object) -> bool:
    """Whether an answer asks the client to come again later."""
    return status in _FULL and isinstance(headers, Mapping) and "retry-after" in headers


def refusal(status: int, body: bytes | None) -> str:
    """Return a refused request's status with the first part of its problem, in one line."""
    said = " ".join((body or b"")[:200].decode(errors="replace").split())
    return f"status {status}: {said}" if status else "no answer"


Answer = dict[str, Any]
