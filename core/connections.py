"""Connections to the platform's Postgres."""

from typing import Any

import psycopg
from psycopg.conninfo import make_conninfo
from sqlalchemy import Engine, create_engine
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from core.settings import DatabaseSettings


def connection_string(url: str, program: str, options: str = "") -> str:
    """Return `url` for a connection outside of a pool, which must notice a dead network within half a minute.

    `program` names it in pg_stat_activity; `options` are the server's. Holds the password: never log it.
    """
    return make_conninfo(
        url,
        application_name=program[:63],
        connect_timeout=5,
        keepalives_idle=10,
        keepalives_interval=5,
        keepalives_count=3,
        tcp_user_timeout=30_000,
        options=options or None,
    )


def _timeout(settings: DatabaseSettings) -> str:
    return f"-c statement_timeout={settings.statement_timeout_seconds}s"


def _options(settings: DatabaseSettings, program: str) -> dict[str, Any]:
    return {
        "pool_size": settings.pool_size,
        "max_overflow": 0,
        "pool_pre_ping": True,
        "pool_timeout": 5,
        # Errors end up in logs, and their parameters are texts.
        "hide_parameters": True,
        "connect_args": {
            "application_name": program,
            "connect_timeout": 5,
            "options": _timeout(settings),
            "prepare_threshold": settings.prepare_threshold,
        },
    }


async def connect(settings: DatabaseSettings, program: str) -> psycopg.AsyncConnection:
    """Open one connection in autocommit mode, for work that one statement does: a third of what the engine costs.

    `program` names it in pg_stat_activity.

    Raises:
        psycopg.OperationalError: Postgres is away.
    """
    url = connection_string(settings.libpq_url, program, _timeout(settings))
    return await psycopg.AsyncConnection.connect(
        url, autocommit=True, prepare_threshold=settings.prepare_threshold
    )


def connect_in_thread(
    settings: DatabaseSettings, program: str, *, autocommit: bool = False, options: str = ""
) -> psycopg.Connection:
    """Open one connection for work outside of an event loop; `options` are the server's.

    `program` names it in pg_stat_activity.

    Raises:
        psycopg.OperationalError: Postgres is away.
    """
    url = connection_string(settings.libpq_url, program, f"{options} {_timeout(settings)}".strip())
    return psycopg.connect(url, autocommit=autocommit, prepare_threshold=settings.prepare_threshold)


def make_engine(settings: DatabaseSettings, program: str) -> Engine:
    """Make an engine for a program that works in threads; `program` names it in pg_stat_activity."""
    return create_engine(settings.sqlalchemy_url, **_options(settings, program))


def make_async_engine(settings: DatabaseSettings, program: str) -> AsyncEngine:
    """Make an engine for a program that works in an event loop; `program` names it in pg_stat_activity."""
    return create_async_engine(settings.sqlalchemy_url, **_options(settings, program))
