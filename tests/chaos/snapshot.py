"""A transaction that stays open as a backup's or a report's does: Postgres keeps every dead row meanwhile."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import psycopg

_NAME = "chaos snapshot"
# The stack's Postgres would end a transaction that is idle for long.
_ENDLESS = "-c idle_in_transaction_session_timeout=0 -c transaction_timeout=0"
_STOP_SECONDS = 60  # a frozen Postgres answers when it goes on


@contextmanager
def holding_snapshot(database_url: str) -> Iterator[None]:
    """Hold a REPEATABLE READ snapshot until the block ends; take a new one whenever Postgres dies."""
    stopping = threading.Event()

    def hold() -> None:
        while not stopping.wait(0.5):
            with suppress(psycopg.OperationalError):
                _hold(database_url, stopping)

    thread = threading.Thread(target=hold, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stopping.set()
        thread.join(_STOP_SECONDS)


def _hold(database_url: str, stopping: threading.Event) -> None:
    with psycopg.connect(database_url, application_name=_NAME, options=_ENDLESS, connect_timeout=5) as connection:
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        connection.execute("select count(*) from texts where false")
        while not stopping.wait(1):
            connection.execute("select 1")


def snapshot_is_held(database_url: str) -> bool:
    """Whether Postgres keeps dead rows for the snapshot."""
    with psycopg.connect(database_url) as connection:
        found = connection.execute(
            "select 1 from pg_stat_activity where application_name = %s and backend_xmin is not null", [_NAME]
        )
        return found.fetchone() is not None
