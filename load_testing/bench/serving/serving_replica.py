"""Building the replica, beside what Postgres alone and DuckDB alone take for the same rows."""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pyarrow as pa
from rich.table import Table

from core.change_feed import WINDOW_END
from serving_api.replica import feed, repository
from serving_api.replica.file import ReplicaFile
from serving_api.replica.replica import Replica
from serving_api.settings import ReplicaSettings

_ANNOTATORS = 3
_ROUNDS = 3


@dataclass(frozen=True, slots=True)
class _Kept:
    """Rows in memory, in place of a snapshot of Postgres: for DuckDB alone."""

    rows: Mapping[str, pa.Table]

    @contextmanager
    def stream(self, statement: str, _start: int, _end: int, /) -> Iterator[pa.RecordBatchReader]:
        yield self.rows[statement].to_reader()


def measure(database_url: str, texts: int) -> Table:
    """Build a replica of so many texts, on an empty database; shows medians."""
    fill = ["demo-data", "--texts", str(texts), "--annotators", str(_ANNOTATORS)]
    subprocess.run(  # noqa: S603 - our own program
        [sys.executable, "-m", "cli", *fill], env=os.environ | {"DATABASE_URL": database_url}, check=True
    )
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("vacuum (analyze)")
    kept = _read(database_url)
    rows = {name: kept.rows[statement].num_rows for name, statement in feed.EVERYTHING.items()}
    # What the replica holds: a labelled text is one row there, and two in Postgres.
    held = rows["labels"] + rows["answers"] + rows["tombstones"]
    ways: dict[str, Callable[[], object]] = {
        "Postgres alone: COPY TO STDOUT, binary, of the same rows": lambda: _copy(database_url),
        "DuckDB alone: the same rows from memory": lambda: _load(kept),
        "build of the replica": lambda: _build(database_url),
    }
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(_ROUNDS):
        for way, run in ways.items():
            seconds[way].append(_clock(run))
    title = f"Building a replica of {rows['labels']:,} labelled texts: {held:,} rows"
    table = Table("way", "s", "rows/s", "texts/s", title=title)
    for way, taken in seconds.items():
        middle = statistics.median(taken)
        table.add_row(way, f"{middle:.2f}", f"{held / middle:,.0f}", f"{rows['labels'] / middle:,.0f}")
    return table


def _clock(run: Callable[[], object]) -> float:
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def _read(database_url: str) -> _Kept:
    with feed.connect(database_url) as connection, feed.snapshot(connection) as snapshot:
        end = snapshot.head(0).window_end
        kept = {}
        for statement in feed.EVERYTHING.values():
            with snapshot.stream(statement, 0, end) as stream:
                kept[statement] = stream.read_all()
    return _Kept(kept)


def _copy(database_url: str) -> None:
    with psycopg.connect(database_url) as connection:
        ((end,),) = connection.execute(f"select {WINDOW_END}::text").fetchall()
        for statement in feed.EVERYTHING.values():
            query = statement.format(start=0, end=end)
            with connection.cursor().copy(f"copy ({query}) to stdout (format binary)".encode()) as copy:
                for _ in copy:
                    pass


def _load(kept: _Kept) -> None:
    with tempfile.TemporaryDirectory() as folder:
        settings = ReplicaSettings()
        file = ReplicaFile(Path(folder) / "replica.duckdb", settings, locked=False)
        with file.cursor() as cursor:
            repository.load(cursor, kept, 0, settings.build_threads)
        file.finish()


def _build(database_url: str) -> None:
    with tempfile.TemporaryDirectory() as folder, feed.connect(database_url) as connection:
        replica = Replica(Path(folder) / "replica.duckdb", ReplicaSettings())
        replica.open()
        with feed.snapshot(connection) as snapshot:
            head = snapshot.head(0)
            replica.build(snapshot, head.identity, head.window_end)
        replica.close()
