"""One uploader works on a dataset at a time: the one that holds its advisory lock in Postgres."""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable

import psycopg
import structlog

from core.database import connection_string

log = structlog.get_logger()

# Postgres, too, must notice within half a minute that the other end is gone; else it would keep a lost leader's
# lock for hours.
_SERVER_KEEPALIVE = "-c tcp_keepalives_idle=10 -c tcp_keepalives_interval=5 -c tcp_keepalives_count=3"


class Leadership:
    """This process's claim to lead the work on one dataset, held on a connection of its own.

    `on_gained` runs once when this process becomes the leader, before it may work as such.
    """

    def __init__(self, libpq_url: str, dataset: str, on_gained: Callable[[], Awaitable[None]]) -> None:
        self._url = libpq_url
        self._dataset = dataset
        self._on_gained = on_gained
        self._key = lock_key(dataset)
        self._connection: psycopg.AsyncConnection | None = None
        self._leads = False
        self._mutex = asyncio.Lock()

    async def hold(self) -> bool:
        """Whether this process leads now; becomes the leader when nobody else is.

        Raises:
            psycopg.Error: Postgres is away; the leadership is lost with the connection.
            Exception: whatever `on_gained` raises; the leadership is given up.
        """
        async with self._mutex:
            try:
                return await self._hold()
            except BaseException:
                await self._drop()
                raise

    async def _hold(self) -> bool:
        if self._connection is None:
            self._connection = await self._connect()
        if self._leads:
            await self._connection.execute("select 1")
            return True
        cursor = await self._connection.execute("select pg_try_advisory_lock(%s)", [self._key])
        if await cursor.fetchone() == (True,):
            await self._on_gained()
            self._leads = True
            log.info("leadership.gained", dataset=self._dataset)
        return self._leads

    async def _connect(self) -> psycopg.AsyncConnection:
        url = connection_string(self._url, f"uploader leader {self._dataset}", _SERVER_KEEPALIVE)
        return await psycopg.AsyncConnection.connect(url, autocommit=True)

    async def release(self) -> None:
        """Let another uploader lead."""
        async with self._mutex:
            await self._drop()

    async def _drop(self) -> None:
        if self._leads:
            log.info("leadership.ended", dataset=self._dataset)
        self._leads = False
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()


def lock_key(dataset: str) -> int:
    """Return the number of a dataset's advisory lock: 64 bits of a hash, so that datasets do not share one."""
    digest = hashlib.sha256(f"uploader\0{dataset}".encode()).digest()
    return int.from_bytes(digest[:8], signed=True)
