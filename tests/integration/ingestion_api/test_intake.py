"""The queue of single texts before the database: its limit, order, batches and errors.

A test locks the table, so that the API waits in the middle of a commit until the test releases it.
"""

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import psycopg
import pytest

from core.text_identity import text_id
from tests.programs import Program, running
from tests.waiting import PATIENCE_SECONDS, wait_for

WAITING_LIMIT = 5
COMMIT_SIZE = 2
BLOCKED = "select pid from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()"


@dataclass
class Intake:
    """An API with a short queue and a new database."""

    url: str
    database: psycopg.Connection
    clients: ThreadPoolExecutor

    def post(self, text: str) -> httpx.Response:
        return httpx.post(f"{self.url}/texts", json={"text": text}, timeout=PATIENCE_SECONDS)

    def metric(self, line: str) -> float:
        found = [row for row in httpx.get(f"{self.url}/metrics").text.splitlines() if row.startswith(f"{line} ")]
        return float(found[0].removeprefix(f"{line} "))

    def begin(self, text: str) -> Future[httpx.Response]:
        """Send a text that the API begins to store, while the table is locked."""
        answer = self.clients.submit(self.post, text)
        wait_for(lambda: len(self.blocked()) == 1)
        return answer

    def enqueue(self, *texts: str) -> list[Future[httpx.Response]]:
        """Send texts one after the other, each when the one before waits in the queue."""
        answers = []
        for text in texts:
            waiting = self.metric("ingestion_waiting_texts")
            answers.append(self.clients.submit(self.post, text))
            wait_for(lambda expected=waiting + 1: self.metric("ingestion_waiting_texts") == expected)  # type: ignore[misc]
        return answers

    def blocked(self) -> list[int]:
        """The processes of Postgres that wait for the table."""
        return [pid for (pid,) in self.database.execute(BLOCKED)]

    @contextmanager
    def locked(self) -> Iterator[psycopg.Connection]:
        """Lock the table until the block ends, or until the given connection rolls back."""
        with psycopg.connect(self.database.info.dsn, password=self.database.info.password) as holder:
            holder.execute("lock table texts in access exclusive mode")
            yield holder
            holder.rollback()


def _settings(wait_seconds: float) -> dict[str, str]:
    return {
        "INGESTION_WAITING_LIMIT": str(WAITING_LIMIT),
        "INGESTION_COMMIT_SIZE": str(COMMIT_SIZE),
        "INGESTION_WAIT_SECONDS": str(wait_seconds),
        "CLIENT_SHARE": "1",
    }


@contextmanager
def _intake(database_url: str, program: Program) -> Iterator[Intake]:
    with ThreadPoolExecutor(20) as clients, psycopg.connect(database_url, autocommit=True) as database:
        yield Intake(program.url, database, clients)
    assert "Traceback" not in program.log.read_text()


@pytest.fixture(scope="module")
def ingestion_settings() -> dict[str, str]:
    return _settings(wait_seconds=3600)


@pytest.fixture
def intake(shared_ingestion: Program, shared_database_url: str) -> Iterator[Intake]:
    """An API whose requests wait for their commit as long as a client does; without texts."""
    with _intake(shared_database_url, shared_ingestion) as intake:
        intake.database.execute("truncate texts cascade")
        yield intake


def _statuses(answers: list[Future[httpx.Response]]) -> list[int]:
    return [answer.result().status_code for answer in answers]


def test_a_full_queue_refuses_one_more_at_once_and_stores_what_it_took(intake: Intake) -> None:
    with intake.locked():
        taken = [intake.begin("under way"), *intake.enqueue(*map(str, range(WAITING_LIMIT)))]
        refused = [intake.post("one too many") for _ in range(2)]
        assert not any(answer.done() for answer in taken)
    for answer in refused:
        assert (answer.status_code, answer.json()["code"]) == (503, "intake_full")
        assert int(answer.headers["retry-after"]) > 0
    assert _statuses(taken) == [201] * (WAITING_LIMIT + 1)
    assert intake.post("one too many").status_code == 201
    assert intake.metric("ingestion_waiting_limit_texts") == WAITING_LIMIT
    assert intake.metric("ingestion_waiting_texts") == 0


def test_texts_are_stored_in_the_order_of_their_arrival_in_batches_of_the_commit_size(intake: Intake) -> None:
    texts = ["first", "b", "a", "d", "c"]
    batches = intake.metric("ingestion_commit_texts_count")
    with intake.locked():
        answers = [intake.begin(texts[0]), *intake.enqueue(*texts[1:])]
    assert [answer.result().json()["id"] for answer in answers] == [str(text_id("toxicity", t)) for t in texts]
    stored = intake.database.execute("select text, xmin::text from texts order by sequence").fetchall()
    transactions = list(dict.fromkeys(transaction for _, transaction in stored))
    batch_texts = [{text for text, of in stored if of == transaction} for transaction in transactions]
    assert batch_texts == [{"first"}, {"b", "a"}, {"d", "c"}]
    assert intake.metric("ingestion_commit_texts_count") == batches + 3


def test_each_of_a_batch_is_told_what_became_of_its_own_text(intake: Intake) -> None:
    assert intake.post("old").status_code == 201
    accepted, duplicates = (
        intake.metric(f'ingestion_submissions_total{{outcome="{o}"}}') for o in ("accepted", "duplicate")
    )
    with intake.locked():
        answers = [intake.begin("under way"), *intake.enqueue("old", "new", "new", "under way")]
    assert _statuses(answers) == [201, 200, 201, 200, 200]
    assert [answer.result().json()["duplicate"] for answer in answers] == [False, True, False, True, True]
    assert intake.metric('ingestion_submissions_total{outcome="accepted"}') == accepted + 2
    assert intake.metric('ingestion_submissions_total{outcome="duplicate"}') == duplicates + 3


def test_a_failed_commit_is_told_at_once_to_all_of_its_batch_and_to_nobody_else(intake: Intake) -> None:
    with intake.locked():
        first, *rest = [intake.begin("under way"), *intake.enqueue("a", "b", "c")]
        for expected in ([first], rest[:2]):
            [pid] = intake.blocked()
            intake.database.execute("select pg_cancel_backend(%s)", [pid])
            for answer in expected:  # else they would wait until their clients give up
                told = answer.result()
                assert (told.status_code, told.json()["code"]) == (503, "database_unavailable")
                assert told.headers["retry-after"]
            wait_for(lambda ended=pid: intake.blocked() not in ([], [ended]))  # type: ignore[misc]
        assert not rest[2].done()
    assert rest[2].result().status_code == 201
    assert intake.database.execute("select text from texts").fetchall() == [("c",)]


def _break_connection(intake: Intake) -> int:
    """Break the connection that stores a batch; returns the process of Postgres that it had."""
    [pid] = intake.blocked()
    intake.database.execute("select pg_terminate_backend(%s)", [pid])
    return pid


def test_a_commit_is_tried_again_when_its_connection_broke_but_only_once(intake: Intake) -> None:
    with intake.locked():
        retried = intake.begin("retried")
        broken = _break_connection(intake)
        wait_for(lambda: intake.blocked() not in ([], [broken]))
        assert not retried.done()
    assert retried.result().status_code == 201
    with intake.locked():
        failed = intake.begin("failed")
        first = _break_connection(intake)
        wait_for(lambda: intake.blocked() not in ([], [first]))
        _break_connection(intake)
        assert failed.result().json()["code"] == "database_unavailable"
    assert intake.post("after").status_code == 201


def test_a_fault_of_the_code_or_the_table_fails_its_batch_and_not_the_next(intake: Intake) -> None:
    intake.database.execute("alter table texts add constraint odd check (text <> 'odd')")
    try:
        assert intake.post("odd").status_code == 503
        assert intake.post("even").status_code == 201
    finally:
        intake.database.execute("alter table texts drop constraint odd")
    assert intake.post("odd").status_code == 201


def test_a_text_whose_client_was_told_to_come_again_is_not_stored_later(database_url: str, tmp_path: Path) -> None:
    settings = _settings(wait_seconds=2) | {"DATABASE_URL": database_url}
    with (
        running("ingestion_api", settings, tmp_path / "log") as program,
        _intake(database_url, program) as intake,
    ):
        with intake.locked():
            answers = [intake.begin("under way"), *[intake.clients.submit(intake.post, t) for t in "abc"]]
            for answer in answers:
                told = answer.result()
                assert (told.status_code, told.json()["code"]) == (503, "database_slow")
                assert told.headers["retry-after"]
        wait_for(lambda: intake.post("after").is_success)
        stored = {text for (text,) in intake.database.execute("select text from texts")}
    assert stored == {"under way", "after"}  # a commit under way is not undone
