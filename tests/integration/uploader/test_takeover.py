"""Uploaders as processes: who leads when one is frozen or killed, or Postgres is away. Argilla is not needed."""

import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path

import httpx
import psycopg
import pytest
from prometheus_client.parser import text_string_to_metric_families
from pydantic import SecretStr

from core.migrate import migrate
from core.settings import DatabaseSettings
from local_stack.testing import running_stack
from tests.programs import Program, free_port, running
from tests.waiting import wait_for

_LEASE_SECONDS = 2

Start = Callable[[], Program]


def _uploader(database_url: str, log: Path) -> AbstractContextManager[Program]:
    env = {
        "DATABASE_URL": database_url,
        "ARGILLA_URL": f"http://127.0.0.1:{free_port()}",
        "ARGILLA_API_KEY": "nobody there",
        "UPLOADER_LEADER_LEASE_SECONDS": str(_LEASE_SECONDS),
        "UPLOADER_RETRY_CAP_SECONDS": "1",
    }
    return running("uploader", env, log)


@pytest.fixture
def start(database_url: str, tmp_path: Path) -> Iterator[Start]:
    """Start an uploader that runs until the test ends."""
    with ExitStack() as stack:
        yield lambda: stack.enter_context(_uploader(database_url, tmp_path / "uploader.log"))


def _leads(uploader: Program) -> bool:
    families = text_string_to_metric_families(httpx.get(f"{uploader.url}/metrics").text)
    return [s.value for family in families for s in family.samples if s.name == "uploader_leads"] == [1]


def _leader(database_url: str) -> object:
    with psycopg.connect(database_url) as connection:
        row = connection.execute("select leader_id from datasets where leader_until > now()").fetchone()
    return row and row[0]


def test_a_frozen_leader_is_followed_and_disturbs_nobody_when_it_wakes(start: Start, database_url: str) -> None:
    frozen = start()
    wait_for(lambda: _leads(frozen))
    other = start()
    first = _leader(database_url)
    frozen.process.send_signal(signal.SIGSTOP)
    try:
        wait_for(lambda: _leads(other))
        second = _leader(database_url)
    finally:
        frozen.process.send_signal(signal.SIGCONT)
    wait_for(lambda: not _leads(frozen))
    assert second not in {None, first}
    assert (_leader(database_url), _leads(other)) == (second, True)


def test_a_killed_leader_is_followed(start: Start) -> None:
    killed = start()
    wait_for(lambda: _leads(killed))
    other = start()
    killed.kill()
    wait_for(lambda: _leads(other))


def test_a_leader_that_stops_is_followed_before_its_lease_runs_out(start: Start, database_url: str) -> None:
    leader = start()
    wait_for(lambda: _leads(leader))
    leader.process.terminate()
    assert leader.process.wait(60) == 0
    with psycopg.connect(database_url) as connection:
        assert connection.execute("select leader_id, leader_until from datasets").fetchall() == [(None, None)]


@pytest.mark.soak
def test_somebody_leads_again_when_postgres_is_back(tmp_path: Path) -> None:
    with running_stack({"postgres"}) as postgres, ExitStack() as stack:
        url = postgres.database_url
        migrate(DatabaseSettings(url=SecretStr(url)))
        both = [stack.enter_context(_uploader(url, tmp_path / "uploader.log")) for _ in range(2)]
        wait_for(lambda: any(map(_leads, both)))
        postgres.stop_component("postgres")
        # It cannot be asked: each stops by its own clock.
        wait_for(lambda: not any(map(_leads, both)))
        postgres.start_component("postgres")
        wait_for(lambda: [_leads(uploader) for uploader in both].count(True) == 1)
        assert _leader(url) is not None
