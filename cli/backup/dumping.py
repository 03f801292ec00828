"""Dumps a database as it is in one moment.

The moment is that of an exported snapshot, so that those of both databases can be taken right after each other,
however long the dumps take.
"""

import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
from psycopg import sql

from cli.backup.archive import Dumped
from cli.backup.postgres_tools import Tools, access, server_major
from core.connections import connection_string

PLATFORM_TABLES = ("texts", "annotations", "labels", "imports", "api_keys", "forget_requests")
ARGILLA_TABLES = ("users", "workspaces", "datasets", "records", "responses", "webhooks")

_LOOK_SECONDS = 0.2

Connection = psycopg.Connection[tuple[object, ...]]


class DumpFailed(Exception):
    """pg_dump did not end well; holds its words."""


@contextmanager
def one_moment(url: str) -> Iterator[tuple[Connection, str]]:
    """Give a connection that sees the database as it is now, and the name of that snapshot for others.

    The transaction only reads: it holds nobody back but VACUUM, and the change feed not at all.
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
    """Return what is in the database at the connection's moment.

    Raises:
        DumpFailed: a table is missing: it is another database.
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
