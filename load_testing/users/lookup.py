"""Whether the platform still has every text that it acknowledged."""

import time
from collections.abc import Sequence

import orjson
from gevent.pool import Pool
from geventhttpclient import HTTPClient

from load_testing.reports.verdict import Lookup
from load_testing.users.comment_texts import submission
from load_testing.users.ingestion_checks import id_of

_AT_ONCE = 16
_ATTEMPTS = 10
_PAUSE_SECONDS = 1
_FAILURES = (OSError, ValueError, KeyError)


def look_up(url: str, headers: dict[str, str], seed: str, numbers: Sequence[int]) -> Lookup:
    """Ask for each of a run's texts by its id; one that comes back as another text is lost, too."""
    client = HTTPClient.from_url(url, concurrency=_AT_ONCE, headers=headers, connection_timeout=10)
    lost, unknown = [], []
    texts = (submission(seed, number)["text"] for number in numbers)
    for id_, found in Pool(_AT_ONCE).imap_unordered(lambda text: _ask(client, text), texts, maxsize=_AT_ONCE):
        if found is None:
            unknown.append(id_)
        elif not found:
            lost.append(id_)
    client.close()
    return Lookup(len(numbers), lost, unknown)


def _ask(client: HTTPClient, text: str) -> tuple[str, bool | None]:
    id_ = id_of(text)
    for attempt in range(_ATTEMPTS):
        if attempt:
            time.sleep(_PAUSE_SECONDS)
        try:
            answer = client.get(f"/texts/{id_}")
            body = bytes(answer.read())
            if answer.status_code == 200:
                return id_, bool(orjson.loads(body)["text"] == text)
        except _FAILURES:
            continue
        if answer.status_code == 404:
            return id_, False
    return id_, None
