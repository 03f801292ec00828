"""Bytes a text takes in each store (Postgres, replica, search index, archive), and how fast each is made."""

import subprocess
import sys
import time
from os import environ
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx
import psycopg
from rich.table import Table

from load_testing.bench.servers import Server, api_environment, serving
from load_testing.bench.serving.serving_pages import build_index
from load_testing.targets import holds_within

_ANNOTATORS = 3
_BUILD_SECONDS = 1800
_TABLES = ("texts", "annotations", "labels")


def measure(database_url: str, texts: int) -> Table:
    """Fill an empty database with so many labelled texts, build what follows from it, and weigh everything."""
    table = Table("what", "bytes a text", "s", "texts/s", title=f"{texts:,} texts, {_ANNOTATORS} annotations each")
    _run(database_url, "demo-data", "--texts", str(texts), "--annotators", str(_ANNOTATORS))
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("vacuum (analyze)")
        for name in _TABLES:
            for part in ("table", "indexes"):
                query = f"select pg_{part}_size('{name}')"
                [(size,)] = connection.execute(query).fetchall()
                table.add_row(f"Postgres, {name}: {part}", f"{size / texts:,.0f}", "", "")
    with TemporaryDirectory() as folder:
        _weigh_replica(table, database_url, texts, Path(folder))
    with TemporaryDirectory() as folder:
        _weigh_archive(table, database_url, texts, Path(folder))
    return table


def _weigh_replica(table: Table, database_url: str, texts: int, folder: Path) -> None:
    env = {"DATA_DIR": str(folder), "SERVING_SEARCH_INDEX": "false", **api_environment(database_url)}
    started = time.perf_counter()
    with serving(["serving_api"], env) as server:
        if not holds_within(_BUILD_SECONDS, lambda: _holds(server, texts)):
            raise RuntimeError("the replica was not built in time")
        _add(table, "replica (DuckDB)", _size(folder, "replica*"), texts, time.perf_counter() - started)
    started = time.perf_counter()
    build_index(folder)
    _add(table, "search index", _size(folder / "serving" / "search", "*"), texts, time.perf_counter() - started)


def _weigh_archive(table: Table, database_url: str, texts: int, folder: Path) -> None:
    started = time.perf_counter()
    _run(database_url, "backup", str(folder), "--without-argilla", "--without-snapshots")
    _add(table, "annotate backup", _size(folder, "*.dump"), texts, time.perf_counter() - started)
    [archive] = folder.glob("annotation-platform-*")
    started = time.perf_counter()
    _run(database_url, "restore", str(archive), "--replace", "--without-argilla", "--without-snapshots")
    _add(table, "annotate restore", None, texts, time.perf_counter() - started)


def _run(database_url: str, *arguments: str) -> None:
    env = environ | {"DATABASE_URL": database_url}
    command = [sys.executable, "-m", "cli", *arguments]
    subprocess.run(command, env=env, check=True, stderr=subprocess.DEVNULL)  # noqa: S603 - our own program


def _add(table: Table, what: str, size: int | None, texts: int, seconds: float) -> None:
    table.add_row(
        what, "" if size is None else f"{size / texts:,.0f}", f"{seconds:.1f}", f"{texts / seconds:,.0f}"
    )


def _size(folder: Path, pattern: str) -> int:
    return sum(file.stat().st_size for file in folder.rglob(pattern) if file.is_file())


def _holds(server: Server, texts: int) -> bool:
    total = httpx.get(f"{server.url}/stats")
    return total.is_success and total.json()["total"] == texts
