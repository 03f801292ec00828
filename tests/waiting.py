"""Waiting for what happens elsewhere."""

import asyncio
import os
import time
from collections.abc import Callable

import psycopg

# Only what never comes takes so long. `make mutants` waits less: most faults that it plants show in this way.
PATIENCE_SECONDS = float(os.environ.get("TEST_WAIT_SECONDS", "180"))

_WAITING = """
select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'
"""


def wait_for(condition: Callable[[], bool], seconds: float = PATIENCE_SECONDS) -> float:
    """Wait until the condition holds; return how many seconds that took."""
    started = time.monotonic()
    while not condition():
        assert time.monotonic() - started < seconds, f"not within {seconds} s"
        time.sleep(0.02)
    return time.monotonic() - started


def wait_for_blocked(database_url: str, sessions: int = 1) -> None:
    """Wait until this number of sessions of the database wait for a lock."""
    with psycopg.connect(database_url, autocommit=True) as watching:
        wait_for(lambda: watching.execute(_WAITING).fetchone() == (sessions,))


async def until_blocked(database_url: str, sessions: int = 1) -> None:
    """Do the same without blocking the event loop."""
    await asyncio.to_thread(wait_for_blocked, database_url, sessions)
