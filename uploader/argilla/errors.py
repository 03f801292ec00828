"""Errors of a call to Argilla, sorted by remedy, and how responses become errors.

ArgillaError
├── Refused      422           the items are wrong; sending them again never helps
├── Fault        500, timeout  Argilla's fault or the items'; they may be stored all the same
│   └── IndexLost 500          the dataset has no search index any more
├── Unreachable  connection errors, 429, 502, 503, 504   waiting helps
├── AlreadyThere 409           another program was quicker
└── Stopped      401, 403, other 4xx, wrong settings     an operator must act
    └── Gone     404           the dataset was deleted
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

import httpx

_NEW_KEY = (
    "it does not know the key in ARGILLA_API_KEY. Set ARGILLA_API_KEY to the key of an owner, as Argilla shows it "
    "under My settings, and restart the uploader."
)
_OWNERS_KEY = (
    "the user of ARGILLA_API_KEY may not do this. Set ARGILLA_API_KEY to the key of an owner and restart the "
    "uploader, or make that user an owner."
)
# The index is missing; or OpenSearch created one for the next write, with other settings than Argilla's.
_INDEX_LOST = ("index_not_found_exception", "Text fields are not optimised for operations")
_STORED = "found records with same external ids: "
_POSITION = re.compile(r"Record at position (\d+) is not valid because (.*)", re.DOTALL)


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


def raise_for_status(response: httpx.Response) -> None:
    """Raise the ArgillaError of a response, unless it is a success."""
    status = response.status_code
    where = f"{response.request.method} {response.request.url.path}: Argilla answered {status}"
    match status:
        case _ if response.is_success:
            return
        case 401:
            raise Stopped(f"{where}: {_NEW_KEY}", "argilla_key_unknown")
        case 403:
            raise Stopped(f"{where}: {_OWNERS_KEY}", "argilla_key_forbidden")
        case 404:
            raise Gone(f"{where}: it was deleted. A deleted dataset is made again.", "argilla_dataset_gone")
        case 409:
            raise AlreadyThere(where)
        case 422:
            raise parse_refusal(response)
        case 429 | 502 | 503 | 504:
            raise Unreachable(where)
        case _ if status >= httpx.codes.INTERNAL_SERVER_ERROR:
            if any(sign in response.text for sign in _INDEX_LOST):
                raise IndexLost(f"{where}: its search index is lost")
            raise Fault(where)
        case _:
            raise Stopped(where)


def parse_refusal(response: httpx.Response) -> Refused:
    """Read the words of a 422, and which items they are about, from either of its two shapes."""
    try:
        detail = response.json()["detail"]
    except (ValueError, TypeError, KeyError):
        return Refused(response.text)
    if isinstance(detail, str):
        # "Record at position 1 is not valid because …": the first one only
        named = _POSITION.match(detail)
        return Refused(detail, {int(named[1]): named[2]} if named else {})
    errors = detail.get("params", {}).get("errors", []) if isinstance(detail, dict) else []
    words: dict[int, str] = {}
    for error in errors:
        match error:
            case {"loc": ["body", "items", int(position), *where], "msg": str(message)}:
                said = f"{'.'.join(map(str, where))}: {message}"
                words[position] = f"{words[position]}; {said}" if position in words else said
    return Refused("; ".join(e["msg"] for e in errors) or str(detail), words)


def parse_stored(refusal: Refused) -> set[str]:
    """Return the external ids that a refused POST reports as taken; none if it is about the items.

    Raises:
        Stopped: it is about something else.
    """
    if refusal.words.startswith(_STORED):
        return set(refusal.words.removeprefix(_STORED).split(", "))
    if refusal.by_position:
        return set()
    raise Stopped(f"Argilla does not say which records it has: {refusal.words}")
