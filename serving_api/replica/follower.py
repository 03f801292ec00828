"""Keeps the replica up to date: one thread follows the change feed, and retries after any error."""

import contextlib
import secrets
import threading
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from uuid import UUID

import psycopg
import structlog
from adbc_driver_postgresql import dbapi

from core.connections import connection_string
from core.models.labels import LABELS_CHANNEL
from core.tracing import tracing
from core.web.keys import KeyRing
from serving_api.metrics import (
    APPLY_SECONDS,
    FEED_ERRORS,
    FEED_HELD_SECONDS,
    LABEL_LAG_SECONDS,
    REPLICA_ROWS,
    REPLICA_VERSION,
)
from serving_api.replica import feed
from serving_api.replica.replica import Replica
from serving_api.replica.repository import State
from serving_api.settings import ReplicaSettings

log = structlog.get_logger()

_FIRST_DELAY_SECONDS = 0.2
_LONGEST_DELAY_SECONDS = 10.0
_LONGEST_BUILD_DELAY_SECONDS = 300.0
# Collects the labels of a busy moment into one window: each new version empties the cache of answers.
_PAUSE_SECONDS = 0.1
# How often the thread checks for a stop.
_LOOK_SECONDS = 0.25

# Texts of one window that are traced; spans must not delay labels.
_TRACED_TEXTS = 5000

_DAMAGED = "damaged file"
_BACK_IN_TIME = "the database went back in time"
_FORGOTTEN = "texts were forgotten, and parts of them are left in the file"

# Separates Postgres' identity from a suffix that makes it a new one.
_AGAIN = "#"


class Follower:
    """Brings the changes from Postgres into the replica, and the valid keys into the key ring."""

    def __init__(self, replica: Replica, url: str, settings: ReplicaSettings, key_ring: KeyRing) -> None:
        self.error: str | None = None
        self.rebuilding: str | None = None  # why
        self._replica = replica
        self._url = url
        self._settings = settings
        self._key_ring = key_ring
        self._traces_since: float | None = None
        self._stop = threading.Event()
        self._window_end = 0
        self._window_moved_at = time.monotonic()
        # A daemon: a Postgres that hangs must not keep the program from ending.
        self._thread = threading.Thread(target=self._run, name="follower", daemon=True)

    def start(self) -> None:
        """Use the keys in the replica's file, and begin to follow."""
        if self._replica.state:
            self._key_ring.replace(self._replica.keys)
            self._show()
        self._thread.start()

    def stop(self, timeout_seconds: float) -> None:
        """Stop after the current window, or after `timeout_seconds`."""
        self._stop.set()
        self._thread.join(timeout_seconds)

    def _run(self) -> None:
        delay = _FIRST_DELAY_SECONDS
        while not self._stop.is_set():
            try:
                with self._listening() as listener, feed.connect(self._url) as connection:
                    self._follow(connection)
                    log.info("feed.connected", version=self._replica.loaded().version)
                    delay = _FIRST_DELAY_SECONDS
                    while self._wait(listener):
                        self._follow(connection)
            except Exception as error:  # noqa: BLE001 - retry after any error
                if self._stop.is_set():
                    return
                FEED_ERRORS.inc()
                self.error = type(error).__name__
                log.warning("feed.failed", error=str(error), kind=self.error, retry_seconds=delay)
                self._stop.wait(delay)
                # A failing build reads all of Postgres each time: retry it ever more rarely.
                delay = min(delay * 2, _LONGEST_BUILD_DELAY_SECONDS if self.rebuilding else _LONGEST_DELAY_SECONDS)

    @contextlib.contextmanager
    def _listening(self) -> Iterator[psycopg.Connection]:
        with psycopg.connect(connection_string(self._url, "serving_api"), autocommit=True) as listener:
            listener.execute(f"listen {LABELS_CHANNEL}")
            yield listener

    def _wait(self, listener: psycopg.Connection) -> bool:
        """Wait for a notification or the poll interval; return whether to continue."""
        if self._stop.wait(min(_PAUSE_SECONDS, self._settings.poll_seconds)):
            return False
        until = time.monotonic() + self._settings.poll_seconds
        while not self._stop.is_set():
            left = until - time.monotonic()
            if left <= 0 or list(listener.notifies(timeout=min(left, _LOOK_SECONDS), stop_after=1)):
                break
        return not self._stop.is_set()

    def _follow(self, connection: dbapi.Connection) -> None:
        """Bring the replica to the state of Postgres."""
        self._replica.folder.drop_old_seed()
        state = self._replica.state
        with feed.snapshot(connection) as snapshot:
            head = snapshot.head(state.cursor if state else 0)
            keys = snapshot.keys()
            self._key_ring.replace(keys)
            self._replica.take_over(keys, snapshot.models(self._replica.models))
            self.rebuilding = _DAMAGED if self._replica.file.damaged else _why_build(state, head)
            if self.rebuilding is None:
                if head.has_changes:
                    self._merge(snapshot, head)
                else:
                    self._replica.advance(head.window_end)
                self.rebuilding = self._why_forget()
        if self.rebuilding:
            self._rebuild(connection, self.rebuilding)
        self._observe(head)

    def _why_forget(self) -> str | None:
        """Return a reason to rebuild `forget_seconds` after texts were forgotten: once for all of them."""
        if not self._replica.has_traces:
            self._traces_since = None
            return None
        now = time.monotonic()
        self._traces_since = self._traces_since or now
        return _FORGOTTEN if now - self._traces_since >= self._settings.forget_seconds else None

    def _rebuild(self, connection: dbapi.Connection, reason: str) -> None:
        """Build another file; the old one, if there is one, is served until then."""
        log.info("replica.building", reason=reason)
        with self._replica.turn_to_build(self._stop) as mine:
            # Don't copy another process's file here: it may contain the damage we are recovering from.
            if mine and (reason == _DAMAGED or not self._copy(connection)):
                self._build(connection, reason)
        if mine:
            self.rebuilding = None
        if mine and reason == _FORGOTTEN:
            self._replica.folder.drop_damaged()

    def _copy(self, connection: dbapi.Connection) -> bool:
        with feed.snapshot(connection) as snapshot:
            head = snapshot.head(0)
        with APPLY_SECONDS.labels("copy").time():
            copied = self._replica.copy_seed(
                lambda state: _why_build(state, head) is None and state.built > self._replica.forgotten
            )
        if copied:
            log.info("replica.copied", rows=self._replica.rows)
        return copied

    def _build(self, connection: dbapi.Connection, reason: str) -> None:
        started = time.perf_counter()
        with feed.snapshot(connection) as snapshot:
            head = snapshot.head(0)
            self._replica.build(snapshot, _history(self._replica.state, head, reason), head.window_end)
        seconds = time.perf_counter() - started
        APPLY_SECONDS.labels("build").observe(seconds)
        log.info("replica.built", rows=self._replica.rows, seconds=round(seconds, 3))

    def _merge(self, snapshot: feed.FeedSnapshot, head: feed.Head) -> None:
        started_ns = time.time_ns()
        with APPLY_SECONDS.labels("merge").time():
            applied = self._replica.merge(snapshot, head.window_end)
        version = self._replica.loaded().version
        log.debug("replica.merged", version=version)
        now = datetime.now(UTC).replace(tzinfo=None)
        for moment in applied.answered_at:
            LABEL_LAG_SECONDS.observe(max(0.0, (now - moment).total_seconds()))
        _trace(applied.ids[:_TRACED_TEXTS], started_ns, version)

    def _observe(self, head: feed.Head) -> None:
        now = time.monotonic()
        if head.window_end != self._window_end or head.window_end == head.next_xid:
            self._window_end, self._window_moved_at = head.window_end, now
        FEED_HELD_SECONDS.set(now - self._window_moved_at)
        self.error = None
        self._show()

    def _show(self) -> None:
        REPLICA_VERSION.set(self._replica.loaded().version)
        REPLICA_ROWS.set(self._replica.rows)


def _trace(ids: Sequence[UUID], started_ns: int, version: int) -> None:
    attributes = {"version": version, "texts": len(ids)}
    window = tracing.add_batch("apply window", ids, started_ns, (), attributes)
    for id_ in ids:
        tracing.add_step("apply", id_, started_ns, attributes={"version": version}, link=window)


def _why_build(state: State | None, head: feed.Head) -> str | None:
    if state is None:
        return "no replica"
    if state.identity.partition(_AGAIN)[0] != head.identity:
        return "another database"
    if state.cursor > head.next_xid:
        return _BACK_IN_TIME
    return None


def _history(state: State | None, head: feed.Head, reason: str) -> str:
    """Return the identity for a build: a new one if the same versions will denote other labels."""
    if reason == _BACK_IN_TIME:
        return f"{head.identity}{_AGAIN}{secrets.token_hex(4)}"
    if state and state.identity.partition(_AGAIN)[0] == head.identity:
        return state.identity
    return head.identity
