"""Starts either version with one process of each API, and tries it: warm-up, texts sent again, Argilla stopped."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import httpx
import psycopg
from rich.console import Console

from load_testing.compare.report import Sent
from load_testing.compare.versions import VERSIONS, labelled_texts
from load_testing.targets import argilla_client, holds_within, texts_under_way, wait_until_served
from load_testing.users.comment_texts import submission
from load_testing.version_1.baseline import put_labelled, running_version_1, stored_texts
from local_stack.components.postgres import argilla_database_url
from local_stack.progress import display_for
from local_stack.stack import Stack
from local_stack.testing import RunningStack, running_stack

_LABELLED_SECONDS = 180
_SETTLED_SECONDS = 300
_BATCH = 10
_TEXTS = 20
_OUTAGE_SEED = "outage"
_TIMEOUT_SECONDS = 120
_WARM_UP_SEED = "warm-up"


class Held(NamedTuple):
    """The texts of a version at the end, with duplicates; `postgres` is empty for version 1."""

    argilla: list[str]
    postgres: list[str]


class Version1:
    """A running version 1."""

    def __init__(self, stack: Stack) -> None:
        """Take its running parts."""
        self._stack = stack
        self.ingestion_url, self.serving_url = stack.settings.ingestion_url, stack.settings.serving_url
        self.argilla = stack.runner("argilla")

    def add_labelled(self) -> None:
        """Make it serve the labelled texts."""
        put_labelled(self._stack, [{"text": text, "label": label} for text, label in labelled_texts()])

    def held(self) -> Held:
        """Return the texts: version 1 uploads nothing later."""
        return Held(stored_texts(self._stack), [])


class Version2:
    """A running version 2."""

    def __init__(self, platform: RunningStack) -> None:
        """Take its running parts."""
        self._platform = platform
        self.ingestion_url, self.serving_url = platform.ingestion_url, platform.serving_url
        self.argilla = platform.stack.runner("argilla")

    def add_labelled(self) -> None:
        """Send the texts, label them in Argilla, and wait until they are served."""
        labels = dict(labelled_texts())
        rows = [{"text": text} for text in labels]
        httpx.post(f"{self.ingestion_url}/texts/bulk", json=rows, timeout=60).raise_for_status()
        self._settle()
        with argilla_client(self._platform.argilla_url, self._platform.argilla_api_key) as owner:
            answers = [
                {"record_id": id_, "status": "submitted", "values": {"label": {"value": labels[text]}}}
                for id_, text in self._records()
            ]
            for first in range(0, len(answers), _BATCH):
                body = {"items": answers[first : first + _BATCH]}
                owner.post("me/responses/bulk", json=body).raise_for_status()
        wait_until_served(self.serving_url, len(labels), _LABELLED_SECONDS)

    def held(self) -> Held:
        """Wait until all uploads are done, and return the texts."""
        self._settle()
        with psycopg.connect(self._platform.database_url) as ours:
            postgres = [text for (text,) in ours.execute("select text from texts").fetchall()]
        return Held([text for _, text in self._records()], postgres)

    def _records(self) -> list[tuple[str, str]]:
        """Return id and text of each record in Argilla's database."""
        with psycopg.connect(argilla_database_url(self._platform.stack.context)) as theirs:
            return theirs.execute("select id::text, fields->>'text' from records").fetchall()

    def _settle(self) -> None:
        """Wait until annotators can find each text in Argilla."""
        if not holds_within(_SETTLED_SECONDS, lambda: texts_under_way(self.ingestion_url) == 0):
            raise SystemExit(f"Version 2: after {_SETTLED_SECONDS} s texts still wait for Argilla.")


Platform = Version1 | Version2


@contextmanager
def running(version: str, console: Console) -> Iterator[Platform]:
    """Run version "1" or "2" until the block ends, then delete its data.

    Raises:
        StackError: it cannot start; the message says what to do.
    """
    if version == "1":
        with running_version_1(display_for(console)) as stack:
            yield Version1(stack)
    else:
        with running_stack(display=display_for(console)) as platform:
            yield Version2(platform)


class Outage(NamedTuple):
    """Numbers of requests while Argilla was down, and of those with a 2xx."""

    posts: int
    posts_answered: int
    gets: int
    gets_answered: int


def warm_up(platform: Platform, version: str) -> None:
    """Send texts and read labels, one after the other: the first requests take longest."""
    with httpx.Client(timeout=_TIMEOUT_SECONDS) as client:
        for number in range(_TEXTS):
            body = submission(_WARM_UP_SEED, number)
            client.post(f"{platform.ingestion_url}/texts", json=body).raise_for_status()
            for path in VERSIONS[version].reads.values():
                client.get(f"{platform.serving_url}{path}").raise_for_status()


def send_again(platform: Platform, runs: Sequence[Sent]) -> list[str]:
    """Send acknowledged texts again, one after the other, as a client does after a lost response."""
    bodies = [submission(run.seed, number) for run in runs for number in run.acknowledged][:_TEXTS]
    with httpx.Client(base_url=platform.ingestion_url, timeout=_TIMEOUT_SECONDS) as client:
        for body in bodies:
            client.post("/texts", json=body).raise_for_status()
    return [body["text"] for body in bodies]


def take_argilla_away(platform: Platform, version: str) -> tuple[Outage, Sent]:
    """Stop Argilla, send new texts and read labels, and start Argilla again."""
    read_url = f"{platform.serving_url}{VERSIONS[version].reads['all']}"
    bodies = [submission(_OUTAGE_SEED, number) for number in range(_TEXTS)]
    platform.argilla.stop()
    try:
        posts = [_is_answered("POST", f"{platform.ingestion_url}/texts", body) for body in bodies]
        gets = [_is_answered("GET", read_url) for _ in bodies]
    finally:
        platform.argilla.start()
    acknowledged = [number for number, is_answered in enumerate(posts) if is_answered]
    return Outage(len(posts), sum(posts), len(gets), sum(gets)), Sent(
        _OUTAGE_SEED, range(len(posts)), acknowledged
    )


def _is_answered(method: str, url: str, body: dict[str, Any] | None = None) -> bool:
    """Whether a request gets a 2xx, on a new connection: version 1 closes it after a 500."""
    try:
        return httpx.request(method, url, json=body, timeout=_TIMEOUT_SECONDS).is_success
    except httpx.TransportError:
        return False
