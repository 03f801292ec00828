"""The replica: what Postgres says about labels, up to one point of the change feed."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import duckdb
import pyarrow as pa

from core.problems import Unavailable
from serving_api import recent_items
from serving_api import replica_tables as tables
from serving_api.feed import Keys, Snapshot
from serving_api.replica_file import ReplicaFile, being_built
from serving_api.settings import ReplicaSettings

# An idle replica notes that it is up to date: rarely, for a file that does not change costs nothing.
_NOTE_SECONDS = 60

# The tables, and what of a window goes into them; one after another, for they come over one connection.
_PARTS = {"items": Snapshot.items, "annotations": Snapshot.annotations, "tombstones": Snapshot.withdrawn}


@dataclass(frozen=True, slots=True)
class State:
    """A point in the change feed of one Postgres."""

    identity: str
    cursor: int  # every change stamped below is applied
    version: int  # the highest stamp applied; 0 when there is none
    read_at: datetime  # when Postgres was last read, UTC


class Replica:
    """What the serving API answers from."""

    def __init__(self, path: Path, settings: ReplicaSettings) -> None:
        self.file = ReplicaFile(path, settings)
        self.state: State | None = None
        self.keys: Keys = {}
        self.rows = 0
        self._listeners: list[Callable[[State], None]] = []
        self._noted_at: datetime | None = None

    def open(self) -> None:
        """Open the file and take over what it holds.

        Raises:
            SystemExit: another process uses it, or it may not be written.
        """
        self.file.open()
        try:
            self._load()
        except Unavailable:  # the file looked sound, but is not
            self.file.renew()

    def close(self) -> None:
        """End what is under way, and close the file."""
        self.file.close()

    def renew(self) -> None:
        """Put a damaged file aside; the next window is a build."""
        self.state = None
        self.file.renew()

    @property
    def age_seconds(self) -> float:
        """Seconds since Postgres was last read; infinite without a replica."""
        return max(0.0, (_now() - self.state.read_at).total_seconds()) if self.state else float("inf")

    @contextmanager
    def reading(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """Give a cursor in a transaction of its own: all that is read within is of one version.

        Raises:
            Unavailable: nothing is loaded yet.
        """
        self.loaded()
        with self.file.transaction("read only") as cursor:
            yield cursor

    def loaded(self) -> State:
        """Return the state.

        Raises:
            Unavailable: nothing is loaded yet.
        """
        if self.state is None:
            raise being_built()
        return self.state

    def on_change(self, listener: Callable[[State], None]) -> None:
        """Have `listener` called, in the thread that writes, whenever another version is there to be read."""
        self._listeners.append(listener)

    def build(self, snapshot: Snapshot, identity: str, end: int) -> None:
        """Replace everything by what `snapshot` shows; readers see the old until it is done."""
        read_at = _now()
        with self.file.cursor() as cursor:
            _stage(cursor, snapshot, 0, end)
            cursor.begin()
            for name in tables.BUILT:
                cursor.execute(f"create or replace table {name} ({tables.TABLES[name]})")
            for statement in tables.LOAD:
                cursor.execute(statement)
            state = State(identity, end, _number(cursor, tables.VERSION), read_at)
            _write(cursor, state)
            cursor.commit()
        self._take_over(state)

    def merge(self, snapshot: Snapshot, end: int) -> None:
        """Apply what changed since the cursor."""
        old = self.loaded()
        read_at = _now()
        with self.file.cursor() as cursor:
            _stage(cursor, snapshot, old.cursor, end)
            cursor.begin()
            for statement in tables.MERGE:
                cursor.execute(statement)
            recent_items.trim(cursor)
            version = max(old.version, _number(cursor, tables.VERSION))
            state = replace(old, cursor=end, version=version, read_at=read_at)
            _write(cursor, state)
            cursor.commit()
        self._take_over(state)

    def advance(self, end: int) -> None:
        """Note that Postgres was read and that nothing had changed below `end`."""
        self.state = replace(self.loaded(), cursor=end, read_at=_now())
        if self._noted_at is None or (self.state.read_at - self._noted_at).total_seconds() > _NOTE_SECONDS:
            with self.file.transaction() as cursor:
                _write(cursor, self.state)
            self._noted_at = self.state.read_at

    def take_over_keys(self, keys: Keys) -> None:
        """Keep the valid API keys, so that they are known also while Postgres is away."""
        if keys == self.keys:
            return
        with self.file.transaction() as cursor:
            cursor.execute("delete from api_keys")
            for hash_, scopes in keys.items():
                cursor.execute("insert into api_keys values (?, ?)", [hash_, sorted(scopes)])
        self.keys = keys

    def _load(self) -> None:
        with self.file.transaction("read only") as cursor:
            found = cursor.execute("select identity, cursor, version, read_at from state").fetchall()
            keys = cursor.execute("select hash, scopes from api_keys").fetchall()
        self.keys = {key: frozenset(scopes) for key, scopes in keys}
        if found:
            self._take_over(State(*found[0]))

    def _take_over(self, state: State) -> None:
        with self.file.transaction("read only") as cursor:
            self.rows = _number(cursor, "select count(*) from items")
        self.state, self._noted_at = state, state.read_at
        for listener in self._listeners:
            listener(state)


def _stage(cursor: duckdb.DuckDBPyConnection, snapshot: Snapshot, start: int, end: int) -> None:
    """Receive a window into temporary tables, outside of a transaction: there DuckDB would keep every batch."""
    for table, read in _PARTS.items():
        cursor.execute(tables.stage(table))
        with read(snapshot, start, end) as stream:
            # Batch by batch: given the stream itself, DuckDB crashes when it is interrupted within.
            for batch in stream:
                cursor.register("incoming", pa.Table.from_batches([batch]))
                cursor.execute(tables.receive(table))
                cursor.unregister("incoming")


def _number(cursor: duckdb.DuckDBPyConnection, statement: str) -> int:
    number: int = cursor.execute(statement).fetchall()[0][0]
    return number


def _write(cursor: duckdb.DuckDBPyConnection, state: State) -> None:
    cursor.execute("delete from state")
    cursor.execute(
        "insert into state values (?, ?, ?, ?)", [state.identity, state.cursor, state.version, state.read_at]
    )


def _now() -> datetime:
    return datetime.now(UTC).replace(tzinfo=None)
