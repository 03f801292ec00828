"""Opens DuckDB, in this module only, and manages one open file: readers, damage, removal after the last reader."""

import ctypes
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb
import structlog
from fsspec import AbstractFileSystem
from fsspec.implementations.local import LocalFileSystem

from core.web.problems import Unavailable
from serving_api.replica.repository import Point, get_layout, get_point
from serving_api.replica.tables import LAYOUT
from serving_api.settings import ReplicaSettings

log = structlog.get_logger()

# DuckDB's errors about a damaged file. Others are about space, memory or time.
_DAMAGE = (duckdb.FatalException, duckdb.InternalException, duckdb.SerializationException)
_DAMAGE_WORDS = ("corrupt", "checksum", "not a valid duckdb", "could not read enough bytes")

_CLOSE_SECONDS = 5.0


def open_memory(settings: ReplicaSettings, spill_folder: str = "") -> duckdb.DuckDBPyConnection:
    """Open an empty database in memory.

    Where memory is short, it writes files into `spill_folder`; without one, it fails.
    """
    return open_database(":memory:", settings, temp_directory=spill_folder)


def open_readable(settings: ReplicaSettings, folder: str, files: AbstractFileSystem) -> duckdb.DuckDBPyConnection:
    """Open an empty database in memory that can read the files below a folder, and no others.

    `folder` is a local path, or an address of `files`.
    """
    connection = open_database(":memory:", settings, locked=False, temp_directory="", enable_external_access=True)
    if not isinstance(files, LocalFileSystem):
        connection.register_filesystem(files)
    for statement in (
        f"set allowed_directories = [{quoted_text(f'{folder}/')}]",
        "set enable_external_file_cache = false",  # it would keep texts that are removed from a snapshot
        "set enable_external_access = false",
        "set lock_configuration = true",
    ):
        connection.execute(statement)
    return connection


def quoted_text(text: str) -> str:
    """Return a text as an SQL literal."""
    return "'" + text.replace("'", "''") + "'"


def open_database(
    path: Path | str, settings: ReplicaSettings, *, locked: bool = True, **more: str | bool
) -> duckdb.DuckDBPyConnection:
    """Open the database at `path`; `more` are further settings of DuckDB.

    If it is `locked`, its settings cannot be changed. Every database that is queried must be locked.

    Raises:
        duckdb.Error: the file is damaged, locked by another process, or not accessible.
    """
    config: dict[str, str | bool | int | float | list[str]] = {
        "enable_external_access": False,
        "python_enable_replacements": False,
        "memory_limit": settings.memory_limit,
        "threads": settings.threads,
        "lock_configuration": locked,
    }
    return duckdb.connect(path, config=config | more)


def release_memory() -> None:
    """Give freed memory back to the operating system; glibc otherwise keeps what DuckDB and tantivy have freed.

    After the search index of 1 M texts is built, 0.6 GB are resident instead of 1.7 GB.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:  # other C libraries have no such function
        trim(0)


class OtherLayout(Exception):
    """The file was written by another version of this program."""


class ReplicaFile:
    """A DuckDB file of the current layout, open in this process only; one thread writes, many read."""

    def __init__(self, path: Path, settings: ReplicaSettings, *, locked: bool = True) -> None:
        """Open or create the file. If `locked`, DuckDB's settings cannot be changed.

        Raises:
            duckdb.Error: it is damaged or not accessible.
            OtherLayout: it was written by another version of this program.
        """
        self.path = path
        self.damaged = False
        self._retired = False
        self._cursors: set[duckdb.DuckDBPyConnection] = set()
        self._idle: list[duckdb.DuckDBPyConnection] = []  # reused; open cursors keep the file open
        # Of the cursors whose transaction sees the newest point.
        self._points: dict[duckdb.DuckDBPyConnection, Point] = {}
        self._renewals = 0
        self._changed = threading.Condition()
        self._connection: duckdb.DuckDBPyConnection | None = _open(path, settings, locked)

    @property
    def closed(self) -> bool:
        """Whether the file is closed."""
        return self._connection is None

    def close(self) -> None:
        """Interrupt running queries, and close the file."""
        with self._changed:
            connection, self._connection = self._connection, None
            while self._idle:
                self._idle.pop().close()
            deadline = time.monotonic() + _CLOSE_SECONDS
            while self._cursors and time.monotonic() < deadline:
                # In a loop: an interrupt between two statements is lost.
                for cursor in self._cursors:
                    cursor.interrupt()
                self._changed.wait(0.1)
        if connection:
            connection.close()

    def finish(self) -> None:
        """Write everything into the file itself, and close it.

        Raises:
            duckdb.Error: there is no space for it.
        """
        if not self.closed:
            with self.cursor() as cursor:
                cursor.execute("checkpoint")
            self.close()

    def retire(self) -> None:
        """Remove the file after its last reader."""
        with self._changed:
            self._retired = True
            unread = not self._cursors
        if unread:
            self._remove()

    @contextmanager
    def transaction(self, mode: str = "") -> Iterator[duckdb.DuckDBPyConnection]:
        """Yield a cursor in a transaction, committed at the end; `mode` may be `read only`. Else as `cursor`."""
        with self.cursor() as cursor:
            cursor.execute(f"begin transaction {mode}")
            yield cursor
            cursor.commit()
        if not mode:
            self.renew()

    @contextmanager
    def querying(self) -> Iterator[tuple[duckdb.DuckDBPyConnection, Point]]:
        """Yield a cursor in a read-only transaction, and the point of the change feed that it sees.

        Both are reused until `renew`: a new cursor and transaction take as much processor time as half a page.
        Don't create temporary tables, and don't interrupt the cursor after the block. Otherwise as `cursor`.
        """
        with self.cursor(again=True) as cursor:
            point = self._points.get(cursor)
            if point is None:
                renewals = self._renewals
                cursor.execute("begin transaction read only")
                point = get_point(cursor)
                with self._changed:
                    if renewals == self._renewals:
                        self._points[cursor] = point
            yield cursor, point

    def renew(self) -> None:
        """Let later queries see all transactions committed so far."""
        with self._changed:
            self._renewals += 1
            for cursor in self._idle:
                if cursor in self._points:
                    cursor.rollback()
            self._points.clear()

    @contextmanager
    def cursor(self, *, again: bool = False) -> Iterator[duckdb.DuckDBPyConnection]:
        """Yield a cursor with its own connection. Closing it rolls back uncommitted changes.

        With `again` the cursor is reused.

        Raises:
            Unavailable: the file is being closed, or the part that was read is damaged.
        """
        cursor = self._get_cursor(again)
        keep = False
        try:
            yield cursor
            keep = again
        except duckdb.InterruptException as error:
            raise being_built() from error
        except duckdb.Error as error:
            if not _is_damage(error):
                raise
            self.damaged = True
            log.warning("replica.damaged", path=str(self.path), error=str(error))
            raise being_built() from error
        finally:
            with self._changed:
                if keep and self._connection:
                    if cursor not in self._points:
                        cursor.rollback()
                    self._idle.append(cursor)
                else:
                    self._points.pop(cursor, None)
                    cursor.close()
                self._cursors.discard(cursor)
                self._changed.notify_all()
                was_last = self._retired and not self._cursors
            if was_last:
                self._remove()

    def _get_cursor(self, again: bool) -> duckdb.DuckDBPyConnection:
        with self._changed:
            if self._connection is None:
                raise being_built()
            cursor = self._idle.pop() if again and self._idle else self._connection.cursor()
            self._cursors.add(cursor)
        return cursor

    def _remove(self) -> None:
        self.close()
        if self.damaged:
            put_aside(self.path)
        else:
            delete(self.path)
        log.info("replica.removed", path=str(self.path), damaged=self.damaged)


def being_built() -> Unavailable:
    """Return the refusal of requests while nothing is loaded."""
    return Unavailable("The replica is being built.", code="replica_missing", retry_after_seconds=5)


def delete(path: Path) -> None:
    """Delete a file, and DuckDB's log and temporary files."""
    path.unlink(missing_ok=True)
    path.with_name(f"{path.name}.wal").unlink(missing_ok=True)
    shutil.rmtree(path.with_name(f"{path.name}.tmp"), ignore_errors=True)


def put_aside(path: Path) -> None:
    """Keep the last damaged file for investigation, always under the same name."""
    aside = path.with_name("replica.damaged")
    delete(aside)
    for suffix in ("", ".wal"):
        file = path.with_name(f"{path.name}{suffix}")
        if file.exists():
            file.rename(aside.with_name(f"{aside.name}{suffix}"))
    delete(path)


def _open(path: Path, settings: ReplicaSettings, locked: bool) -> duckdb.DuckDBPyConnection:
    connection = open_database(path, settings, locked=locked)
    try:
        layout = get_layout(connection)
    except duckdb.Error:
        connection.close()
        raise
    if layout != LAYOUT:
        connection.close()
        raise OtherLayout(f"The file has layout {layout}, not {LAYOUT}.")
    return connection


def _is_damage(error: duckdb.Error) -> bool:
    return isinstance(error, _DAMAGE) or any(word in str(error).lower() for word in _DAMAGE_WORDS)
