"""Uninterruptible queries: hostile patterns are not among them, and a process with such queries is replaced."""

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import httpx
import pytest

from load_testing.bench.replica_rows import make_replica
from tests.integration.serving_api.labelling import Labeller, wait_until
from tests.integration.serving_api.test_serving_processes import children
from tests.programs import Program, free_port, running

_STUCK = "tests.integration.serving_api.stuck"
_THREADS = 1
_HOSTILE = [
    "text like '%_%_%_%_%_%_%_%~'",
    "text ilike '%a%a%a%a%a%a%a%~'",
    "text ilike '%a_a_a_a_a_%~'",
    "text like '%" + "a" * 900 + "%~%'",
]


def _environment(folder: Path, port: int, **more: str) -> dict[str, str]:
    make_replica(folder / "serving" / "replica.duckdb", 100)
    return {
        # No server listens there: the replica serves its data.
        "DATABASE_URL": "postgresql://nobody@127.0.0.1:1/none",
        "DATA_DIR": str(folder),
        "SERVING_PORT": str(port),
        "SERVING_QUERY_THREADS": str(_THREADS),
        "SERVING_QUERY_SECONDS": "1",
        "SERVING_STUCK_SECONDS": "1",
        **more,
    }


@pytest.fixture
def stuck(tmp_path: Path) -> Iterator[Program]:
    port = free_port()
    with running(_STUCK, _environment(tmp_path, port), tmp_path / "log", "/readyz", port) as program:
        yield program


def _missing(url: str) -> Mapping[str, str]:
    with suppress(httpx.TransportError):
        missing: dict[str, str] = httpx.get(f"{url}/readyz").json()["missing"]
        return missing
    return {}


def test_a_process_whose_threads_are_stuck_says_so_and_ends(stuck: Program) -> None:
    assert httpx.get(f"{stuck.url}/texts").status_code == 200
    httpx.post(f"{stuck.url}/stick")
    # A query over its time limit is refused immediately; one alone does not end the process.
    assert httpx.get(f"{stuck.url}/texts?limit=2", timeout=30).json()["code"] == "query_timeout"
    wait_until(lambda: "queries" in _missing(stuck.url))
    assert "queries are stuck" in _missing(stuck.url)["queries"]
    for line in (
        f'serving_overdue_queries{{kind="queries"}} {_THREADS}.0',
        'serving_stuck_total{kind="queries"} 1.0',
    ):
        wait_until(lambda: line in httpx.get(f"{stuck.url}/metrics").text)  # noqa: B023
    # Cached responses are served until then.
    assert httpx.get(f"{stuck.url}/texts").status_code == 200
    assert stuck.process.wait(120) != 0
    assert "queries.stuck" in stuck.log.read_text()


def _pids(program: Program) -> set[int]:
    return {child.pid for child in children(program)}


def test_of_several_processes_the_stuck_one_is_replaced(tmp_path: Path) -> None:
    port = free_port()
    environment = _environment(tmp_path, port, SERVING_PROCESSES="2")
    make_replica(tmp_path / "serving" / "2" / "replica.duckdb", 100)
    with running(_STUCK, environment, tmp_path / "log", "/readyz", port) as program:
        wait_until(lambda: len(_pids(program)) == 2)
        before = _pids(program)
        wait_until(lambda: httpx.post(f"{program.url}/stick").is_success)
        wait_until(lambda: len(_pids(program) & before) == 1 and len(_pids(program)) == 2)
        wait_until(lambda: program.log.read_text().count("Application startup complete") == 3)
        assert httpx.get(f"{program.url}/readyz").is_success
        assert program.process.poll() is None


def test_hostile_patterns_keep_no_thread(database_url: str, labeller: Labeller, tmp_path: Path) -> None:
    labeller.add_label("ab" * 30_000)
    labeller.add_label("a" * 60_000)
    env = {"DATABASE_URL": database_url, "DATA_DIR": str(tmp_path), "SERVING_QUERY_SECONDS": "60"}
    with running("serving_api", env, tmp_path / "log", "/readyz") as program:
        url = program.url
        wait_until(lambda: len(httpx.get(f"{url}/texts").json()["items"]) == 2)

        def ask(where: str) -> httpx.Response:
            parameters = {"config": "live", "split": "train", "where": where}
            return httpx.get(f"{url}/filter", params=parameters, timeout=120)

        with ThreadPoolExecutor(len(_HOSTILE)) as clients:
            for answer in clients.map(ask, _HOSTILE):
                assert answer.status_code == 200, answer.text
                assert answer.json()["num_rows_total"] == 0
        refused = ask("text like '" + "%_" * 1000 + "~'")
        assert (refused.status_code, refused.json()["code"]) == (422, "invalid_fields")
        assert httpx.get(f"{url}/texts?limit=3").status_code == 200
