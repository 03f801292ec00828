"""Whether the platform still has every text that it acknowledged."""

import time

import orjson
from gevent.pool import Pool
from geventhttpclient import HTTPClient

from load_testing.reports.verdict import Lookup
from load_testing.users.comment_texts import submission
from load_testing.users.ingestion_checks import id_of
from load_testing.users.run_journal import Journal

_AT_ONCE = 16
_ATTEMPTS = 10
_PAUSE_SECONDS = 1
_FAILURES = (OSError, ValueError, KeyError)


def look_up(url: str, headers: dict[str, str], journal: Journal) -> Lookup:
    """Ask for each text that the platform acknowledged, by its id; one that comes back as another text is lost."""
    client = HTTPClient.from_url(url, concurrency=_AT_ONCE, headers=headers, connection_timeout=10)
    lost, unknown = [], []
    texts = (submission(journal.seed, number)["text"] for number in journal.acknowledged)
    ids = ((id_of(text, journal.dataset), text) for text in texts)
    for id_, found in Pool(_AT_ONCE).imap_unordered(lambda asked: _ask(client, *asked), ids, maxsize=_AT_ONCE):
        if found is None:
            unknown.append(id_)
        elif not found:
            lost.append(id_)
    client.close()
    return Lookup(len(journal.acknowledged), lost, unknown)


def _ask(client: HTTPClient, id_: str, text: str) -> tuple[str, bool | None]:
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
