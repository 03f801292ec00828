"""Tests of uploader.model: the process that trains is killed, stopped, or lacks memory."""

import asyncio
import os
import signal
from pathlib import Path

import psycopg
from prometheus_client import REGISTRY
from sqlalchemy.ext.asyncio import AsyncEngine

from tests.integration.uploader.conftest import Rows, RunWithEngine
from tests.integration.uploader.leading import DATASET
from tests.integration.uploader.modelling import add_labelled, keeping_model
from tests.unit.simulated_comments import simulate_comments

COMMENTS = simulate_comments(400, seed=1)


def _failures() -> float:
    return REGISTRY.get_sample_value("uploader_model_failures_total", {"dataset": DATASET}) or 0


def _files(folder: Path) -> list[str]:
    return [path.name for path in folder.rglob("*") if path.is_file()]


def test_one_killed_in_the_middle_leaves_nothing_half_made(
    run: RunWithEngine, database_url: str, rows: Rows, tmp_path: Path
) -> None:
    add_labelled(database_url, COMMENTS)

    async def kill(connection: psycopg.AsyncConnection) -> None:
        async def find_reader() -> bool:
            found = await connection.execute(
                "select 1 from pg_stat_activity where application_name = 'uploader training'"
            )
            return await found.fetchone() is not None

        while not await find_reader():  # noqa: ASYNC110 - Postgres sends no event
            await asyncio.sleep(0.01)
        for process in _children():
            os.kill(process, signal.SIGKILL)

    async def work(engine: AsyncEngine) -> None:
        async with keeping_model(engine, tmp_path) as loop:
            before = _failures()
            async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as connection:
                killing = asyncio.create_task(kill(connection))
                await loop.look()
                await killing
            assert _failures() == before + 1
            assert rows("select * from models") == []
            assert "model.json" not in _files(tmp_path)
            await loop.look()

    run(work)
    [(version, is_active)] = rows("select version, is_active from models")
    assert is_active
    assert [path.name for path in (tmp_path / "models" / DATASET).iterdir()] == [version]


def _children() -> list[int]:
    """Return the processes that this one started, and that run Python for the job."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
            command = path.with_name("cmdline").read_bytes()
        except OSError:
            continue
        if int(fields[1]) == os.getpid() and b"to_process" in command:
            found.append(int(path.parent.name))
    return found


def test_a_training_without_enough_memory_fails_and_is_told(
    run: RunWithEngine, database_url: str, rows: Rows, tmp_path: Path
) -> None:
    add_labelled(database_url, COMMENTS)

    async def work(engine: AsyncEngine) -> None:
        async with keeping_model(engine, tmp_path, memory_bytes=20 * 2**20) as loop:
            before = _failures()
            await loop.look()
            assert _failures() == before + 1

    run(work)
    assert rows("select * from models") == []


def test_stopping_ends_the_training(run: RunWithEngine, database_url: str, rows: Rows, tmp_path: Path) -> None:
    add_labelled(database_url, COMMENTS)

    async def work(engine: AsyncEngine) -> None:
        async with keeping_model(engine, tmp_path) as loop:
            stopping = asyncio.Event()
            asyncio.get_running_loop().call_later(0.5, stopping.set)
            await loop.job.run(stopping, lambda: None)

    run(work)
    assert rows("select * from models") == []
