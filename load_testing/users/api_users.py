"""The users of both APIs: they send texts, and read labels in all ways that the serving API offers."""

import os
import random
import re
from urllib.parse import urlencode

import orjson
from locust import task
from locust.env import Environment

from core.datasets import DEFAULT_DATASET, load_datasets
from load_testing.users import checks
from load_testing.users.checked_user import CheckedUser
from load_testing.users.checks import Answer, Holds, Item
from load_testing.users.comment_texts import bulk_body, submission
from load_testing.users.load_run import journal

_BULK_ROWS = (20, 100)
_REPEATED_ROWS = 3
_CHANCE = random.Random()  # noqa: S311 - a choice of requests, no secret


def _some_acknowledged() -> int | None:
    numbers = journal().acknowledged
    return _CHANCE.choice(numbers) if numbers else None


class IngestionUser(CheckedUser):
    """Sends texts to the ingestion API."""

    host = os.environ.get("INGESTION_URL") or "http://localhost:8080"
    weight = 1

    @task(14)
    def post_text(self) -> None:
        """Send a text that was never sent before."""
        number = journal().next_number()
        body = submission(journal().seed, number, journal().dataset)

        def check(status: int, content: bytes) -> None:
            journal().acknowledged.append(number)
            checks.check_stored(status, orjson.loads(content), body["text"], journal().dataset)

        self.ask("POST", "/texts", "ingestion: /texts (new)", check, orjson.dumps(body), objective="post")

    @task(3)
    def post_again(self) -> None:
        """Send an acknowledged text again, as a client does after a lost response."""
        number = _some_acknowledged()
        if number is None:
            self.post_text()
            return
        body = submission(journal().seed, number, journal().dataset)
        self.ask(
            "POST",
            "/texts",
            "ingestion: /texts (sent again)",
            lambda status, content: checks.check_repeated(
                status, orjson.loads(content), body["text"], journal().dataset
            ),
            orjson.dumps(body),
            objective="post",
        )

    @task(1)
    def post_bulk(self) -> None:
        """Send many texts as NDJSON: new ones, some that were sent before, and a bad one."""
        new = [journal().next_number() for _ in range(_CHANCE.randint(*_BULK_ROWS))]
        old = {number for _ in range(_REPEATED_ROWS) if (number := _some_acknowledged()) is not None}

        def check(_: int, content: bytes) -> None:
            journal().acknowledged.extend(new)
            checks.check_bulk(orjson.loads(content), len(new), len(old), 1)

        body = bulk_body(journal().seed, [*new, *sorted(old)], bad_rows=1, dataset=journal().dataset)
        self.ask("POST", "/texts/bulk", "ingestion: /texts/bulk", check, body, "application/x-ndjson")

    @task(2)
    def get_status(self) -> None:
        """Read the status of an acknowledged text."""
        number = _some_acknowledged()
        if number is None:
            self.post_text()
            return
        text = submission(journal().seed, number, journal().dataset)["text"]
        self.get_json(
            f"/texts/{checks.id_of(text, journal().dataset)}",
            "ingestion: /texts/{id}",
            lambda answer: checks.check_status(answer, text, journal().dataset),
        )

    @task(1)
    def get_queue(self) -> None:
        """Read the state of the queue."""
        self.get_json("/queue", "ingestion: /queue", checks.check_queue)


_LIMITS = (10, 50, 100)
_LABELS = load_datasets(None)[DEFAULT_DATASET].labels
_WORD = re.compile(r"(?<!\S)[A-Za-z]{4,}(?!\S)")


class ServingUser(CheckedUser):
    """Reads labels from the serving API."""

    host = os.environ.get("SERVING_URL") or "http://localhost:9000"
    weight = 1
    # The last page, and the cursor of the next one.
    items: list[Item]
    following = ""
    limit = 0
    # The version up to which changes were read.
    since = 0

    def __init__(self, environment: Environment) -> None:
        """Start without a page."""
        super().__init__(environment)
        self.items = []

    @task(6)
    def get_page(self) -> None:
        """Read the newest labels."""
        limit = _CHANCE.choice(_LIMITS)

        def check(answer: Answer) -> None:
            checks.check_page(answer, limit)
            self.items, self.following, self.limit = answer["items"], answer["next_cursor"] or "", limit

        self.get_json(f"/texts?limit={limit}", "serving: /texts (newest)", check)

    @task(4)
    def get_next_page(self) -> None:
        """Read the page after the last one."""
        if not self.following:
            self.get_page()
            return
        limit, before = self.limit, {item["id"] for item in self.items}

        def check(answer: Answer) -> None:
            checks.check_next_page(answer, limit, before)
            self.items, self.following = answer["items"], answer["next_cursor"] or ""

        path = f"/texts?{urlencode({'limit': limit, 'cursor': self.following})}"
        self.get_json(path, "serving: /texts?cursor=", check)

    @task(2)
    def get_label(self) -> None:
        """Read one label's texts."""
        label = _CHANCE.choice(_LABELS)
        self._filter({"label": label}, "serving: /texts?label=", lambda item: item["label"] == label)

    @task(1)
    def get_label_list(self) -> None:
        """Read one label's own list."""
        label = _CHANCE.choice(_LABELS)
        self.get_json(
            f"/{label}_texts",
            "serving: /{label}_texts",
            lambda answer: checks.check_page(answer, _LIMITS[-1], lambda item: item["label"] == label),
        )

    @task(1)
    def get_agreed(self) -> None:
        """Read texts with a minimum agreement."""
        least = round(_CHANCE.uniform(0.5, 1), 2)
        filters = {"min_agreement": least, "status": "labelled"}
        self._filter(
            filters,
            "serving: /texts?min_agreement=",
            lambda item: bool(item["agreement"] >= least and item["status"] == "labelled"),
        )

    @task(1)
    def get_source(self) -> None:
        """Read one source's texts."""
        sources = [item["source"] for item in self.items if item["source"]]
        source = _CHANCE.choice(sources) if sources else "forum"
        self._filter({"source": source}, "serving: /texts?source=", lambda item: item["source"] == source)

    @task(2)
    def search(self) -> None:
        """Search for a word of a text of the last page."""
        words = _WORD.findall(_CHANCE.choice(self.items)["text"]) if self.items else []
        word = _CHANCE.choice(words) if words else "thanks"
        limit = _LIMITS[0]
        path = f"/texts?{urlencode({'q': word, 'match': 'words', 'limit': limit})}"
        self.get_json(path, "serving: /texts?q=", lambda answer: checks.check_found(answer, limit, word))

    @task(3)
    def get_text(self) -> None:
        """Read one text with its annotations."""
        if not self.items:
            self.get_page()
            return
        id_ = _CHANCE.choice(self.items)["id"]
        self.get_json(f"/texts/{id_}", "serving: /texts/{id}", lambda answer: checks.check_text(answer, id_))

    @task(1)
    def get_stats(self) -> None:
        """Read the totals."""
        self.get_json("/stats", "serving: /stats", checks.check_stats)

    @task(1)
    def export(self) -> None:
        """Export the texts of one label, labelled after the last text of the last page."""
        label = _CHANCE.choice(_LABELS)
        parameters = {"label": label}
        if self.items:
            parameters["labelled_after"] = self.items[-1]["labelled_at"]
        self.ask(
            "GET",
            f"/export.ndjson?{urlencode(parameters)}",
            "serving: /export.ndjson?label=",
            lambda _, content: checks.check_export(content, label),
        )

    @task(1)
    def get_changes(self) -> None:
        """Read the changes since the last read."""
        since = self.since

        def check(answer: Answer) -> None:
            checks.check_changes(answer, since)
            self.since = answer["next"]

        self.get_json(f"/changes?since={since}&limit=100", "serving: /changes", check)

    def _filter(self, filters: dict[str, object], name: str, holds: Holds) -> None:
        limit = _CHANCE.choice(_LIMITS)
        path = f"/texts?{urlencode({**filters, 'limit': limit})}"
        self.get_json(path, name, lambda answer: checks.check_page(answer, limit, holds))
