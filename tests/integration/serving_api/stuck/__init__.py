"""The serving API with threads that can be blocked: `python -m tests.integration.serving_api.stuck`.

`POST /stick` starts, in the pool of queries, as many queries that nothing interrupts as there are threads.
"""

import asyncio
from typing import Any

import duckdb
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from core.settings import read_settings
from serving_api.main import make_app
from serving_api.replica.query_pool import QueryPool
from serving_api.settings import ServingSettings

# A pattern that is no constant: DuckDB's own LIKE, which goes back and forth.
_ENDLESS = """
    select count(*) from (select repeat('a', 60000) as x, repeat('%a', 30 + n) || 'b' as p from range(2) t(n))
    where x like p
"""


def _stick(cursor: duckdb.DuckDBPyConnection, _: object) -> Any:
    return cursor.execute(_ENDLESS).fetchall()


class Sticky:
    """ASGI application around the product's."""

    def __init__(self) -> None:
        self._app = make_app()
        self._tasks: set[asyncio.Task[Any]] = set()

    def __getattr__(self, name: str) -> Any:
        """Look like the product's application."""
        return getattr(self._app, name)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve, or have all threads stuck."""
        if scope["type"] != "http" or scope["path"] != "/stick":
            await self._app(scope, receive, send)
            return
        pool: QueryPool = self._app.state.query_pool
        for _ in range(read_settings(ServingSettings).query_threads):
            self._tasks.add(asyncio.create_task(pool.run(_stick)))
        await Response()(scope, receive, send)


def make_sticky() -> Any:
    """Make the application; called in each process."""
    return Sticky()
