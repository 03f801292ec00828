"""Connections to the platform's Postgres."""

from typing import Any

import psycopg
from sqlalchemy import Engine, create_engine
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from core.settings import DatabaseSettings


def _options(settings: DatabaseSettings, program: str) -> dict[str, Any]:
    timeout = f"-c statement_timeout={settings.statement_timeout_seconds}s"
    return {
        "pool_size": settings.pool_size,
        "max_overflow": 0,
        "pool_pre_ping": True,
        "pool_timeout": 5,
        "connect_args": {"application_name": program, "connect_timeout": 5, "options": timeout},
    }


async def connect(settings: DatabaseSettings, program: str) -> psycopg.AsyncConnection:
    """Open one connection in autocommit mode, for work that one statement does: a third of what the engine costs.

    It notices a dead network within half a minute. `program` names it in pg_stat_activity.

    Raises:
        psycopg.OperationalError: Postgres is away.
    """
    return await psycopg.AsyncConnection.connect(
        settings.libpq_url,
        autocommit=True,
        application_name=program,
        connect_timeout=5,
        keepalives_idle=10,
        keepalives_interval=5,
        keepalives_count=3,
        tcp_user_timeout=30_000,
        options=f"-c statement_timeout={settings.statement_timeout_seconds}s",
    )


def make_engine(settings: DatabaseSettings, program: str) -> Engine:
    """Make an engine for a program that works in threads; `program` names it in pg_stat_activity."""
    return create_engine(settings.sqlalchemy_url, **_options(settings, program))


def make_async_engine(settings: DatabaseSettings, program: str) -> AsyncEngine:
    """Make an engine for a program that works in an event loop; `program` names it in pg_stat_activity."""
    return create_async_engine(settings.sqlalchemy_url, **_options(settings, program))
