"""Those who send texts: mostly one at a time, some of them again, now and then many at once."""

import os
import random

import orjson
from locust import task

from load_testing.users import ingestion_checks
from load_testing.users.checked_user import CheckedUser
from load_testing.users.comment_texts import bulk_body, submission
from load_testing.users.run_journal import journal

_BULK_ROWS = (20, 100)
_REPEATED_ROWS = 3
_CHANCE = random.Random()  # noqa: S311 - whose turn it is, no secret


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
            ingestion_checks.check_stored(status, orjson.loads(content), body["text"], journal().dataset)

        self.ask("POST", "/texts", "ingestion: /texts (new)", check, orjson.dumps(body), objective="post")

    @task(3)
    def post_again(self) -> None:
        """Send an acknowledged text again, as a client does that did not get the answer."""
        number = _some_acknowledged()
        if number is None:
            self.post_text()
            return
        body = submission(journal().seed, number, journal().dataset)
        self.ask(
            "POST",
            "/texts",
            "ingestion: /texts (sent again)",
            lambda status, content: ingestion_checks.check_repeated(
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
            ingestion_checks.check_bulk(orjson.loads(content), len(new), len(old), 1)

        body = bulk_body(journal().seed, [*new, *sorted(old)], bad_rows=1, dataset=journal().dataset)
        self.ask("POST", "/texts/bulk", "ingestion: /texts/bulk", check, body, "application/x-ndjson")

    @task(2)
    def get_status(self) -> None:
        """Look what became of an acknowledged text."""
        number = _some_acknowledged()
        if number is None:
            self.post_text()
            return
        text = submission(journal().seed, number, journal().dataset)["text"]
        self.ask(
            "GET",
            f"/texts/{ingestion_checks.id_of(text, journal().dataset)}",
            "ingestion: /texts/{id}",
            lambda _, content: ingestion_checks.check_status(orjson.loads(content), text, journal().dataset),
            objective="get",
        )

    @task(1)
    def get_queue(self) -> None:
        """Look how much waits."""
        self.ask(
            "GET",
            "/queue",
            "ingestion: /queue",
            lambda _, content: ingestion_checks.check_queue(orjson.loads(content)),
            objective="get",
        )
