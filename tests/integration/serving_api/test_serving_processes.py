"""Several processes that share a port and a machine: each has a replica, and one of them builds it."""

import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import psutil
import pytest

from tests.integration.serving_api.labelling import Labeller, wait_until
from tests.integration.serving_api.test_serving_rebuild import builds_wait
from tests.programs import Program, running

PROCESSES = 3


@pytest.fixture
def environment(database_url: str, tmp_path: Path) -> dict[str, str]:
    return {
        "DATABASE_URL": database_url,
        "DATA_DIR": str(tmp_path),
        "REPLICA_POLL_SECONDS": "0.05",
        "SERVING_PROCESSES": str(PROCESSES),
    }


def count(program: Program, event: str) -> int:
    return len(re.findall(rf"{event}\b", program.log.read_text()))


def ready(program: Program) -> int:
    return count(program, "replica.built") + count(program, "replica.copied")


@pytest.fixture
def several(labeller: Labeller, environment: dict[str, str], tmp_path: Path) -> Iterator[Program]:
    for number in range(5):
        labeller.add_label(f"text {number}")
    with running("serving_api", environment, tmp_path / "log", "/readyz") as program:
        wait_until(lambda: ready(program) == PROCESSES, 60)
        yield program


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


def test_one_builds_and_all_answer_the_same(several: Program, labeller: Labeller, tmp_path: Path) -> None:
    assert count(several, "replica.built") == 1
    assert len(answers(several)) == 1
    labeller.add_label("one more")
    newest = str(labeller.newest_stamp())
    wait_until(lambda: {version for version, *_ in answers(several)} == {newest})
    assert len(answers(several)) == 1
    folders = {file.parent.relative_to(tmp_path / "serving") for file in tmp_path.rglob("replica-1.duckdb")}
    assert folders == {Path(), Path("2"), Path("3")}
    metrics = {httpx.get(f"{several.url}/metrics").text for _ in range(10)}
    assert all(f"\nserving_replica_version {float(newest)}\n" in text for text in metrics)
    assert all("\nserving_replica_rows 6.0\n" in text for text in metrics)


@pytest.mark.soak
def test_a_dead_process_finds_its_replica_again(several: Program, labeller: Labeller) -> None:
    before, connected = children(several), count(several, "feed.connected")
    before[0].kill()
    labeller.add_label("while it was dead")
    wait_until(lambda: before[0] not in children(several) and len(children(several)) == PROCESSES, 60)
    wait_until(lambda: count(several, "feed.connected") > connected, 60)
    wait_until(lambda: {len(re.findall(b'"id"', body)) for *_, body in answers(several)} == {6})
    assert ready(several) == PROCESSES


@pytest.mark.soak
def test_another_one_builds_when_the_builder_is_killed(
    labeller: Labeller, environment: dict[str, str], database_url: str, tmp_path: Path
) -> None:
    labeller.add_label("text")

    def builders(program: Program) -> list[psutil.Process]:
        return [one for one in children(program) if any("building" in file.path for file in one.open_files())]

    with builds_wait(database_url) as lock, running("serving_api", environment, tmp_path / "log") as program:
        wait_until(lambda: count(program, "replica.building") == PROCESSES and builders(program), 60)
        (builder,) = builders(program)
        builder.kill()
        wait_until(lambda: builders(program) not in ([], [builder]), 60)
        lock.rollback()
        wait_until(lambda: ready(program) == PROCESSES, 60)
        assert count(program, "replica.built") == 1
        assert {len(re.findall(b'"id"', body)) for *_, body in answers(program)} == {1}
