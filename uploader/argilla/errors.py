"""Errors of a call to Argilla, sorted by what helps.

ArgillaError
├── Refused      422           the items are wrong; sending them again never helps
├── Fault        500, timeout  Argilla's fault or the items'; they may be stored all the same
│   └── IndexLost 500          the dataset has no search index any more
├── Unreachable  connection errors, 429, 502, 503, 504   waiting helps
├── AlreadyThere 409           another program was quicker
└── Stopped      401, 403, other 4xx, wrong settings     an operator must act
    └── Gone     404           the dataset was deleted
"""

from collections.abc import Mapping
from dataclasses import dataclass, field


class ArgillaError(Exception):
    """A call of Argilla failed; the message is safe to log: it holds no texts."""


@dataclass(eq=False)  # exceptions must stay hashable
class Refused(ArgillaError):
    """Argilla refuses the items because of their content. Nothing was stored.

    `words` is Argilla's own reason. `by_position` has it for each refused item that Argilla names; it is empty
    when Argilla does not say which item it means. Both may quote the items: never log them.
    """

    words: str
    by_position: Mapping[int, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return "Argilla refused what was sent"


class Fault(ArgillaError):
    """Argilla broke down over a call, or did not answer in time."""


class IndexLost(Fault):
    """Argilla's search engine works, but has no index of the dataset, or one that it made up itself."""


class Unreachable(ArgillaError):
    """Argilla, or a server that it needs, is away."""


class AlreadyThere(ArgillaError):
    """Argilla has an object of this name already."""


@dataclass(eq=False)
class Stopped(ArgillaError):
    """Argilla does not let us work on a dataset until an operator changes something.

    `reason` is for people and says what to do; `code` is for programs and stays the same.
    """

    reason: str
    code: str = "argilla_stopped"

    def __str__(self) -> str:
        return self.reason


class Gone(Stopped):
    """Argilla does not know the dataset."""
