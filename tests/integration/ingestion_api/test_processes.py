"""Several processes that share a port: one may die, and they end together."""

import itertools
import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import psycopg
import pytest

from tests.programs import Program, running
from tests.waiting import wait_for


@pytest.fixture
def several(database_url: str, tmp_path: Path) -> Iterator[Program]:
    env = {"DATABASE_URL": database_url, "INGESTION_PROCESSES": "2"}
    with running("ingestion_api", env, tmp_path / "ingestion.log") as program:
        wait_for(lambda: len(_serving(program)) == 2)
        yield program


def _serving(program: Program) -> list[psutil.Process]:
    children = psutil.Process(program.process.pid).children()
    return [child for child in children if child.status() != psutil.STATUS_ZOMBIE and _is_serving(child)]


def _is_serving(child: psutil.Process) -> bool:
    return "spawn_main" in " ".join(child.cmdline())


def _send(program: Program, text: str) -> int:
    """Send over a new connection, so that any process may get it."""
    return httpx.post(f"{program.url}/texts", json={"text": text}, timeout=20).status_code


def _count(program: Program) -> float:
    metrics = httpx.get(f"{program.url}/metrics", timeout=20).text
    found = re.search(r'^ingestion_submissions_total\{outcome="accepted"\} (\S+)$', metrics, re.MULTILINE)
    return float(found[1]) if found else 0


def test_any_process_answers_for_all(several: Program, database_url: str) -> None:
    numbers = itertools.count(1)

    # Which process gets a connection is the kernel's choice, and a busy one may get none for long.
    def both_have_stored() -> bool:
        assert {_send(several, f"text {next(numbers)}") for _ in range(20)} == {201}
        with psycopg.connect(database_url) as connection:
            programs = connection.execute(
                "select count(distinct pid) from pg_stat_activity where application_name = 'ingestion_api intake'"
            ).fetchone()
        return programs == (2,)

    wait_for(both_have_stored)
    sent = next(numbers) - 1
    assert {_count(several) for _ in range(10)} == {sent}


def test_a_dead_process_is_replaced(several: Program) -> None:
    first = _serving(several)[0]
    first.kill()
    wait_for(lambda: len(serving := _serving(several)) == 2 and first not in serving)
    assert {_send(several, f"text {n}") for n in range(20)} == {201}
    assert _count(several) == 20


def test_none_outlives_the_first(several: Program) -> None:
    processes = _serving(several)
    several.kill()
    _, alive = psutil.wait_procs(processes, timeout=20)
    assert not alive


def test_wrong_settings_are_said_once(tmp_path: Path) -> None:
    log = tmp_path / "ingestion.log"
    env = {"DATABASE_URL": "mysql://nowhere", "INGESTION_PROCESSES": "2"}
    with pytest.raises(AssertionError), running("ingestion_api", env, log):
        pass
    assert log.read_text().count("must start with postgresql://") == 1
