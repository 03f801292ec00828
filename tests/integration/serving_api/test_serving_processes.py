"""Several processes that share a port and a machine: each has a replica, and one of them builds it."""

import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil
import pytest
from pydantic import SecretStr
from sqlalchemy import create_engine

from core.settings import DatabaseSettings
from tests.conftest import fresh_database
from tests.integration.serving_api.labelling import Labeller, wait_until
from tests.integration.serving_api.test_serving_rebuild import builds_wait
from tests.otlp import Collector, collecting
from tests.programs import Program, running

PROCESSES = 3


def environment(database_url: str, folder: Path) -> dict[str, str]:
    return {
        "DATABASE_URL": database_url,
        "DATA_DIR": str(folder),
        "REPLICA_POLL_SECONDS": "0.05",
        "SERVING_PROCESSES": str(PROCESSES),
    }


def count(program: Program, event: str) -> int:
    return len(re.findall(rf"{event}\b", program.log.read_text()))


def ready(program: Program) -> int:
    return count(program, "replica.built") + count(program, "replica.copied")


@dataclass(frozen=True)
class Several:
    """A program of several processes, and where it keeps its replicas."""

    program: Program
    labeller: Labeller
    folder: Path
    collector: Collector


@pytest.fixture(scope="module")
def several(
    admin_database_url: str, template_database: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Several]:
    """Started once, for it takes three processes that load everything."""
    folder = tmp_path_factory.mktemp("several")
    with fresh_database(admin_database_url, template_database) as url, collecting() as collector:
        engine = create_engine(DatabaseSettings(url=SecretStr(url)).sqlalchemy_url)
        labeller = Labeller(engine)
        for number in range(5):
            labeller.add_label(f"text {number}")
        env = environment(url, folder) | {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url}
        with running("serving_api", env, folder / "log", "/readyz") as program:
            wait_until(lambda: ready(program) == PROCESSES)
            yield Several(program, labeller, folder, collector)
        engine.dispose()


def children(program: Program) -> list[psutil.Process]:
    def serves(child: psutil.Process) -> bool:
        with suppress(psutil.Error):
            return child.status() != psutil.STATUS_ZOMBIE and "spawn_main" in " ".join(child.cmdline())
        return False

    return [child for child in psutil.Process(program.process.pid).children() if serves(child)]


def answers(program: Program) -> set[tuple[str, str, bytes]]:
    """Ask over many connections, so that all processes answer."""
    found = [httpx.get(f"{program.url}/texts", timeout=20) for _ in range(40)]
    return {(one.headers.get("x-replica-version", ""), one.headers.get("etag", ""), one.content) for one in found}


def shown(program: Program) -> set[int]:
    """Return how many texts the processes show."""
    return {body.count(b'"id"') for *_, body in answers(program)}


def test_one_builds_and_all_answer_the_same(several: Several) -> None:
    program, labeller = several.program, several.labeller
    assert count(program, "replica.built") == 1
    assert len(answers(program)) == 1
    (before,) = shown(program)
    labeller.add_label("one more")
    newest = str(labeller.newest_stamp())
    wait_until(lambda: {version for version, *_ in answers(program)} == {newest})
    assert len(answers(program)) == 1
    serving = several.folder / "serving"
    assert {file.parent.relative_to(serving) for file in serving.rglob("replica-1.duckdb")} == {
        Path(),
        Path("2"),
        Path("3"),
    }
    expected = f"\nserving_replica_version {float(newest)}\n", f"\nserving_replica_rows {float(before + 1)}\n"

    def all_measure_it() -> bool:
        metrics = {httpx.get(f"{program.url}/metrics").text for _ in range(10)}
        return all(line in text for text in metrics for line in expected)

    wait_until(all_measure_it)


def test_each_process_sends_its_own_spans(several: Several) -> None:
    id_ = several.labeller.add_label("is traced")
    pids = {child.pid for child in children(several.program)}
    wait_until(lambda: {span.pid for span in several.collector.of(id_) if span.name == "apply"} == pids)


@pytest.mark.soak
def test_a_dead_process_finds_its_replica_again(several: Several) -> None:
    program = several.program
    (shown_before,) = shown(program)
    before, connected = children(program), count(program, "feed.connected")
    before[0].kill()
    several.labeller.add_label("while it was dead")
    wait_until(lambda: before[0] not in children(program) and len(children(program)) == PROCESSES)
    wait_until(lambda: count(program, "feed.connected") > connected)
    wait_until(lambda: shown(program) == {shown_before + 1})
    assert ready(program) == PROCESSES


@pytest.mark.soak
def test_another_one_builds_when_the_builder_is_killed(
    labeller: Labeller, database_url: str, tmp_path: Path
) -> None:
    labeller.add_label("text")

    def builders(program: Program) -> list[psutil.Process]:
        return [one for one in children(program) if any("building" in file.path for file in one.open_files())]

    env = environment(database_url, tmp_path)
    with builds_wait(database_url) as lock, running("serving_api", env, tmp_path / "log") as program:
        wait_until(lambda: count(program, "replica.building") == PROCESSES and builders(program))
        (builder,) = builders(program)
        builder.kill()
        wait_until(lambda: builders(program) not in ([], [builder]))
        lock.rollback()
        wait_until(lambda: ready(program) == PROCESSES)
        assert count(program, "replica.built") == 1
        assert shown(program) == {1}
