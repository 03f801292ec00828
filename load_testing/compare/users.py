"""The users of the comparison, a Locust file: `VERSION=1 locust -f load_testing/compare/users.py`.

INGESTION_URL and SERVING_URL are the addresses of the version.
"""

import os
import random
import sys
from pathlib import Path

import orjson
from locust import events, task
from locust.env import Environment

# Locust puts this folder on the path, not the project's.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from load_testing.compare.versions import VERSIONS, labelled_texts
from load_testing.users.checked_user import CheckedUser
from load_testing.users.checks import expect
from load_testing.users.comment_texts import submission
from load_testing.users.load_run import add_closed_options, journal

_VERSION = VERSIONS[os.environ.get("VERSION") or "2"]
_EXPECTED = {what: {row for row in labelled_texts() if what in ("all", row[1])} for what in _VERSION.reads}
# Numbers of the texts whose request has ended. At the end of a run Locust may abort one.
_SENT: list[int] = []
_CHANCE = random.Random()  # noqa: S311 - a choice of requests, no secret


class TextSender(CheckedUser):
    """Sends new texts, one after the other."""

    host = os.environ.get("INGESTION_URL") or "http://localhost:8080"

    @task
    def post_text(self) -> None:
        """Send a new text."""
        number = journal().next_number()
        body = submission(journal().seed, number)

        def check(status: int, content: bytes) -> None:
            journal().acknowledged.append(number)
            _VERSION.check_stored(status, orjson.loads(content), body["text"])

        self.ask("POST", "/texts", "a text", check, orjson.dumps(body))
        _SENT.append(number)


class LabelReader(CheckedUser):
    """Reads all labelled texts, or those of one label."""

    host = os.environ.get("SERVING_URL") or "http://localhost:9000"

    @task
    def get_texts(self) -> None:
        """Read, and compare the response with the expected texts."""
        what = _CHANCE.choice(list(_VERSION.reads))

        def check(_: int, content: bytes) -> None:
            rows = _VERSION.rows_of(orjson.loads(content))
            expect("number of texts", len(rows), len(_EXPECTED[what]))
            found = {(row["text"], row["label"]) for row in rows}
            expect("texts that are wrong", len(found ^ _EXPECTED[what]), 0)

        self.ask("GET", _VERSION.reads[what], what, check)


events.init_command_line_parser.add_listener(add_closed_options)


@events.test_start.add_listener
def _begin(**_: object) -> None:
    _SENT.clear()


@events.test_stop.add_listener
def _end(environment: Environment, **_: object) -> None:
    done = journal()
    done.end()
    # Failures are a result here, not an error.
    environment.process_exit_code = 0
    done.write(sent=_SENT, acknowledged=list(done.acknowledged))
