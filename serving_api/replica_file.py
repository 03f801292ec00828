"""The replica's file: who may open it, who is reading it, and what happens when it is damaged."""

import fcntl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

import duckdb
import structlog

from core.problems import Unavailable
from serving_api.duckdb_connection import open_database
from serving_api.replica_tables import LAYOUT, TABLES
from serving_api.settings import ReplicaSettings

log = structlog.get_logger()

# What DuckDB says of a file that cannot be trusted any more. Other errors are about space, memory, time.
_DAMAGE = (duckdb.FatalException, duckdb.InternalException, duckdb.SerializationException)
_DAMAGE_WORDS = ("corrupt", "checksum", "not a valid duckdb", "could not read enough bytes")
# At opening it is the other way round: all but these mean damage.
_NO_ACCESS_WORDS = ("lock on file", "permission denied", "no space left", "read-only file system")

_CLOSE_SECONDS = 5.0


class ReplicaFile:
    """A DuckDB file of the current layout, owned by this process; one thread writes, many read."""

    def __init__(self, path: Path, settings: ReplicaSettings) -> None:
        self.path = path
        self.damaged = False
        self._settings = settings
        self._lock_file: TextIO | None = None
        self._connection: duckdb.DuckDBPyConnection | None = None
        self._cursors: set[duckdb.DuckDBPyConnection] = set()
        self._idle: list[duckdb.DuckDBPyConnection] = []  # to be used again; open ones keep the file open
        self._changed = threading.Condition()

    def open(self) -> None:
        """Open the file; begin an empty one where it is missing, damaged or of another layout.

        Raises:
            SystemExit: another process uses it, or it may not be written.
        """
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._lock()
            self._connect()
        except (OSError, duckdb.Error) as error:
            self.close()
            raise SystemExit(f"The replica {self.path} cannot be used: {error}") from error

    def close(self) -> None:
        """End what is under way, and close the file."""
        self._disconnect()
        if self._lock_file:
            self._lock_file.close()

    def renew(self) -> None:
        """Put the damaged file aside and begin an empty one."""
        self._disconnect()
        self._put_aside()
        self._connect()
        self.damaged = False

    @contextmanager
    def transaction(self, mode: str = "") -> Iterator[duckdb.DuckDBPyConnection]:
        """Give a cursor in a transaction, committed at the end; `mode` may be `read only`. Raises as `cursor`."""
        with self.cursor(again=bool(mode)) as cursor:
            cursor.execute(f"begin transaction {mode}")
            yield cursor
            cursor.commit()

    @contextmanager
    def cursor(self, again: bool = False) -> Iterator[duckdb.DuckDBPyConnection]:
        """Give a cursor, a connection of its own; closing it rolls back what is not committed.

        With `again` it is one that was used before, if there is one, and is kept: a page on a new one takes about
        1 ms of processor time more. Not for temporary tables.

        Raises:
            Unavailable: the file is just being closed or renewed, or is found damaged and soon will be.
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
                    self._idle.append(cursor)
                else:
                    cursor.close()
                self._cursors.discard(cursor)
                self._changed.notify_all()

    def _get_cursor(self, again: bool) -> duckdb.DuckDBPyConnection:
        with self._changed:
            if self._connection is None:
                raise being_built()
            cursor = self._idle.pop() if again and self._idle else self._connection.cursor()
            self._cursors.add(cursor)
        return cursor

    def _lock(self) -> None:
        """Keep other serving processes away: DuckDB's own lock cannot be told from damage on every system."""
        self._lock_file = self.path.with_suffix(".lock").open("w")
        try:
            fcntl.flock(self._lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self._lock_file.close()
            raise SystemExit(
                f"Another process uses the replica {self.path}. Give each serving process its own DATA_DIR."
            ) from error

    def _connect(self) -> None:
        try:
            self._connection = self._open_current()
        except duckdb.Error as error:
            if any(word in str(error).lower() for word in _NO_ACCESS_WORDS):
                raise
            log.warning("replica.damaged", path=str(self.path), error=str(error))
            self._put_aside()
            self._connection = self._open_current()

    def _open_current(self) -> duckdb.DuckDBPyConnection:
        connection = open_database(self.path, self._settings)
        try:
            layout = _layout(connection)
        except duckdb.Error:
            connection.close()
            raise
        if layout == LAYOUT:
            return connection
        connection.close()
        log.info("replica.layout_changed", found=layout, wanted=LAYOUT)
        for file in self._files():
            file.unlink(missing_ok=True)
        return self._open_current()

    def _disconnect(self) -> None:
        with self._changed:
            connection, self._connection = self._connection, None
            while self._idle:
                self._idle.pop().close()
            deadline = time.monotonic() + _CLOSE_SECONDS
            while self._cursors and time.monotonic() < deadline:
                # Again and again: an interrupt between two statements is lost.
                for cursor in self._cursors:
                    cursor.interrupt()
                self._changed.wait(0.1)
        if connection:
            connection.close()

    def _put_aside(self) -> None:
        for file in self._files():
            if file.exists():
                file.rename(file.with_name(f"{file.name}.damaged"))

    def _files(self) -> tuple[Path, Path]:
        return self.path, self.path.with_name(f"{self.path.name}.wal")


def being_built() -> Unavailable:
    """Return the refusal of whoever asks for data while there is none."""
    return Unavailable("The replica is being built.", code="replica_missing", retry_after_seconds=5)


def _layout(connection: duckdb.DuckDBPyConnection) -> int:
    """Return the layout that the file has; an empty file gets the current one."""
    connection.execute("begin")
    if connection.execute("select count(*) from duckdb_tables()").fetchall() == [(0,)]:
        for name, columns in TABLES.items():
            connection.execute(f"create table {name} ({columns})")
        connection.execute("insert into layout values (?)", [LAYOUT])
    number: int = connection.execute("select max(number) from layout").fetchall()[0][0]
    connection.commit()
    return number


def _is_damage(error: duckdb.Error) -> bool:
    return isinstance(error, _DAMAGE) or any(word in str(error).lower() for word in _DAMAGE_WORDS)
