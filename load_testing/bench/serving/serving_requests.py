"""The kinds of requests that the serving API is measured with: each request of a kind asks for other texts."""

import hashlib
import random
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from urllib.parse import urlencode

from core.datasets import DEFAULT_DATASET, load_datasets
from serving_api.texts.parameters import TextsParameters
from serving_api.texts.query import Position, encode_cursor, microseconds, page_query

LIMIT = 100

# One request of a kind, among so many texts.
Request = Callable[[random.Random, int], str]

_DATASETS = load_datasets(None)


def paths(request: Request, rows: int) -> Iterator[str]:
    """Yield the paths of a kind's requests, without end; the same each time."""
    chance = random.Random(0)  # noqa: S311 - places in a list, no secret
    while True:
        yield request(chance, rows)


def _moment(chance: random.Random, rows: int) -> datetime:
    """Return when one of the texts was labelled: one was in each second up to about now."""
    return datetime.now(UTC).replace(tzinfo=None) - timedelta(seconds=chance.random() * rows)


def _newest(chance: random.Random, rows: int) -> str:
    # As good as no filter, but another list each time.
    return f"/texts?limit={LIMIT}&min_agreement={chance.random() / 10}"


def _before(chance: random.Random, rows: int) -> str:
    return f"/texts?limit={LIMIT}&labelled_before={_moment(chance, rows).isoformat()}Z"


def _between(chance: random.Random, rows: int) -> str:
    start = _moment(chance, rows)
    end = start + timedelta(hours=1)
    return f"/texts?limit={LIMIT}&labelled_after={start.isoformat()}Z&labelled_before={end.isoformat()}Z"


def _deep(**filters: str) -> Request:
    """Return a kind whose requests go on somewhere in the list with these filters."""
    parameters = TextsParameters.model_validate(
        filters | {"label": [filters["label"]] if "label" in filters else []}
    )
    fingerprint = page_query(parameters, parameters.label, _DATASETS).texts.fingerprint

    def path(chance: random.Random, rows: int) -> str:
        place = microseconds(_moment(chance, rows))
        following = encode_cursor(Position(place, uuid.UUID(int=0)), fingerprint)
        return f"/texts?{urlencode(filters | {'limit': LIMIT, 'cursor': following})}"

    return path


def _text(chance: random.Random, rows: int) -> str:
    digest = hashlib.md5(f"text {chance.randrange(rows)}".encode(), usedforsecurity=False).hexdigest()
    return f"/texts/{uuid.UUID(digest)}"


FRESH: dict[str, Request] = {
    "newest page": _newest,
    "page by cursor": _deep(),
    "page by cursor, oldest first": _deep(order="oldest"),
    "label": _deep(label="toxic"),
    "source, a third": _deep(source="forum"),
    "source, 1 in 10,000": _deep(source="rare"),
    "status, 1 in 50": _deep(status="disputed"),
    "annotator, half": _deep(annotator="bob"),
    "annotator, 1 in 1,000": _deep(annotator="cleo"),
    "min_agreement": _deep(min_agreement="0.9"),
    "labelled_before": _before,
    "an hour": _between,
    "GET /texts/{id}": _text,
    "GET /stats": lambda *_: f"/stats?dataset={DEFAULT_DATASET}",
}
REPEATED = f"/texts?limit={LIMIT}"
REPEATED_STATS = "/stats"
