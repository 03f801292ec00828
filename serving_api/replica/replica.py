"""The replica: a DuckDB copy of Postgres' labels, up to one point of the change feed."""

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TextIO

import duckdb

from core.web.keys import ValidKey
from core.web.problems import Unavailable
from serving_api.replica import feed, folder, repository, tables
from serving_api.replica.feed import FeedSnapshot, StoredModel, stage
from serving_api.replica.file import ReplicaFile, being_built
from serving_api.replica.folder import ReplicaFolder
from serving_api.replica.repository import Applied, Point, State, apply, load
from serving_api.settings import ReplicaSettings

# How often an idle replica stores its state: rarely, since it writes to the file.
_NOTE_SECONDS = 60


class Replica:
    """The serving API's data. Only the follower's thread writes."""

    file: ReplicaFile
    folder: ReplicaFolder

    def __init__(self, path: Path, settings: ReplicaSettings, processes: int = 1) -> None:
        """Make a replica in the folder of `path`; each of several processes gets its own folder in it."""
        self.state: State | None = None
        self.keys: list[ValidKey] = []
        self.models: list[StoredModel] = []  # the newest first
        self.rows = 0
        self.forgotten = 0  # the version at which the last text was forgotten
        self._shared = path.parent
        self._settings = settings
        self._processes = processes
        self._folder_lock: TextIO | None = None
        self._swapping = threading.Lock()
        self._files: list[ReplicaFile] = []  # all that may be open, including old files with readers
        self._listeners: list[Callable[[State], None]] = []
        self._noted_at: datetime | None = None
        self._closing = False

    def open(self) -> None:
        """Open the file and load its state.

        Raises:
            SystemExit: another process uses it, or it may not be written.
        """
        self._closing = False
        try:
            own_folder, self._folder_lock = folder.claim(self._shared, self._processes)
            self.folder = ReplicaFolder(own_folder, self._shared, self._settings)
            self._use(self.folder.open())
            try:
                self._load()
            except Unavailable:  # the file is damaged
                self.file.retire()
                self._use(self.folder.open())
        except (OSError, duckdb.Error) as error:
            self.close()
            raise SystemExit(f"The replica in {self._shared} cannot be used: {error}") from error

    def close(self) -> None:
        """Interrupt running queries, and close the files."""
        self._closing = True
        for file in list(self._files):
            file.close()
        if self._folder_lock:
            self._folder_lock.close()

    @property
    def age_seconds(self) -> float:
        """Seconds since Postgres was last read; infinite without a replica."""
        return max(0.0, (_now() - self.state.read_at).total_seconds()) if self.state else float("inf")

    @contextmanager
    def reading(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """Yield a cursor in its own transaction: everything read in it is of one version.

        It stays readable even if the replica is rebuilt.

        Raises:
            Unavailable: nothing is loaded yet, or the file is damaged where it was read.
        """
        self.loaded()
        with ExitStack() as stack:
            with self._swapping:
                cursor = stack.enter_context(self.file.transaction("read only"))
            yield cursor

    @contextmanager
    def querying(self) -> Iterator[tuple[duckdb.DuckDBPyConnection, Point]]:
        """Yield the same as `ReplicaFile.querying`, for short queries. Raises as `reading`."""
        self.loaded()
        with ExitStack() as stack:
            with self._swapping:
                given = stack.enter_context(self.file.querying())
            yield given

    def loaded(self) -> State:
        """Return the state.

        Raises:
            Unavailable: nothing is loaded yet.
        """
        if self.state is None:
            raise being_built()
        return self.state

    @property
    def has_traces(self) -> bool:
        """Whether the file may have parts of a text that was forgotten after its build began."""
        return self.state is not None and self.forgotten >= self.state.built > 0

    def on_change(self, listener: Callable[[State], None]) -> None:
        """Call `listener`, in the follower's thread, whenever there is a new version."""
        self._listeners.append(listener)

    def turn_to_build(self, stopping: threading.Event) -> AbstractContextManager[bool]:
        """Wait until no other process of this machine builds; yield false if `stopping` is set first."""
        return folder.building_turn(self._shared, stopping)

    def build(self, snapshot: FeedSnapshot, identity: str, end: int) -> None:
        """Build a new file from `snapshot`, and use it. Readers see the old one until then."""
        read_at = _now()
        with self._next(self.folder.begin()) as file:
            with file.cursor() as cursor:
                load(cursor, snapshot, end, self._settings.build_threads)
                state = State(identity, end, repository.get_number(cursor, tables.BUILT_VERSION), read_at, end)
                repository.replace_state(cursor, state)
                repository.replace_keys(cursor, self.keys)
                repository.replace_models(cursor, self.models)
            if self._processes > 1:
                self.folder.make_seed(file)
            self._swap(file, state)

    def copy_seed(self, fits: Callable[[State], bool]) -> bool:
        """Use a copy of the file that another process of this machine has built, if `fits` accepts its state."""
        file = self.folder.begin_from_seed()
        if file is None:
            return False
        with self._next(file):
            with file.transaction() as cursor:
                state = repository.get_state_or_none(cursor)
                repository.replace_keys(cursor, self.keys)
                repository.replace_models(cursor, self.models)
            if state is None or not fits(state):
                return False
            self._swap(file, state)
        return True

    def merge(self, snapshot: FeedSnapshot, end: int) -> Applied:
        """Apply and return the changes since the cursor."""
        old = self.loaded()
        read_at = _now()
        with self.file.cursor() as cursor:
            stage(cursor, snapshot, feed.CHANGES, old.cursor, end)
            cursor.begin()
            applied = apply(cursor)
            version = max(old.version, repository.get_number(cursor, tables.VERSION))
            state = replace(old, cursor=end, version=version, read_at=read_at)
            repository.replace_state(cursor, state)
            cursor.commit()
        self.file.renew()
        self._set(state)
        self._tell()
        return applied

    def advance(self, end: int) -> None:
        """Record that Postgres was read, and that no label changed below `end`."""
        self.state = replace(self.loaded(), cursor=end, read_at=_now())
        if self._noted_at is None or (self.state.read_at - self._noted_at).total_seconds() > _NOTE_SECONDS:
            with self.file.transaction() as cursor:
                repository.replace_state(cursor, self.state)
            self._noted_at = self.state.read_at

    def take_over(self, keys: list[ValidKey], models: list[StoredModel]) -> None:
        """Store the valid API keys and the models: they are needed while Postgres is unavailable."""
        if keys == self.keys and models == self.models:
            return
        self.keys, self.models = keys, models
        if not self.file.damaged:
            with self.file.transaction() as cursor:
                repository.replace_keys(cursor, keys)
                repository.replace_models(cursor, models)

    def _load(self) -> None:
        with self.file.transaction("read only") as cursor:
            state = repository.get_state_or_none(cursor)
            self.keys = repository.list_keys(cursor)
            self.models = repository.list_models(cursor)
        if state:
            self._set(state)

    @contextmanager
    def _next(self, file: ReplicaFile) -> Iterator[ReplicaFile]:
        """Remove the next file at the end, unless it was put in place."""
        self._files.append(file)
        try:
            if self._closing:
                raise being_built()
            yield file
        finally:
            self.folder.discard(file)

    def _swap(self, building: ReplicaFile, state: State) -> None:
        new = self.folder.put_in_place(building)
        old = self.file
        with self._swapping:
            self._use(new)
            self._set(state)
        self._tell()
        old.retire()

    def _use(self, file: ReplicaFile) -> None:
        self._files = [one for one in self._files if not one.closed] + [file]
        self.file = file

    def _set(self, state: State) -> None:
        with self.file.transaction("read only") as cursor:
            self.rows = repository.count_items(cursor)
            self.forgotten = repository.get_last_forgotten(cursor)
        self.state, self._noted_at = state, state.read_at

    def _tell(self) -> None:
        for listener in self._listeners:
            listener(self.loaded())


def _now() -> datetime:
    return datetime.now(UTC).replace(tzinfo=None)
