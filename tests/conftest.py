"""Real servers for the tests: one stack per run, and a new database for each test."""

import inspect
import os
import pickle
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

import httpx
import psycopg
import pytest
import structlog
from fastapi.openapi.utils import get_openapi
from hypothesis import settings
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict
from pydantic import SecretStr
from starlette.routing import BaseRoute

from core.migrate import migrate
from core.settings import DatabaseSettings
from local_stack.testing import RunningStack, running_stack

_TEMPLATE = "test_template"
# Their routes do not depend on settings.
_APIS = {"Ingestion API", "Serving API", "Uploader"}

# The machine may be busy: how long an example takes says nothing about the code. Each run tries other examples.
settings.register_profile("project", deadline=None, max_examples=20)
settings.load_profile("project")


@pytest.fixture(scope="session", autouse=True)
def _one_tls_context() -> Iterator[None]:
    """Let the clients of httpx share what none uses: reading all certificates would take each of them 25 ms."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("httpx._transports.default.create_ssl_context", cache(httpx.create_ssl_context))
        yield


@pytest.fixture(scope="session", autouse=True)
def _one_description() -> Iterator[None]:
    """Let FastAPI describe the routes of each API once: it needs half a second, and each application needs it."""
    described: dict[tuple[str, int], bytes] = {}

    def get_described(*, title: str, routes: Sequence[BaseRoute], **options: Any) -> dict[str, Any]:
        key = (title, len(routes))
        if title not in _APIS or key not in described:
            described[key] = pickle.dumps(get_openapi(title=title, routes=routes, **options))
        document: dict[str, Any] = pickle.loads(described[key])  # noqa: S301 - the application completes its own copy
        return document

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fastapi.applications.get_openapi", get_described)
        yield


@pytest.fixture(scope="session", autouse=True)
def _plain_tracebacks() -> Iterator[None]:
    """Log tracebacks as the programs do: structlog's own, with all local variables, take a second each."""
    renderer = structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
    structlog.configure(processors=[*structlog.get_config()["processors"][:-1], renderer])
    yield
    structlog.reset_defaults()


@pytest.fixture(scope="session", autouse=True)
def _patient_clients() -> Iterator[None]:
    """Let clients of httpx without a timeout wait for two minutes: a busy machine may need more than 5 s."""
    default = inspect.signature(httpx.get).parameters["timeout"].default
    with pytest.MonkeyPatch.context() as patch:
        for phase in ("connect", "read", "write", "pool"):
            patch.setattr(default, phase, 120.0)
        yield


@pytest.fixture(scope="session")
def stack() -> Iterator[RunningStack]:
    """The whole platform on free ports."""
    with running_stack() as running:
        yield running


@pytest.fixture(scope="session")
def admin_database_url() -> Iterator[str]:
    """A Postgres of the tests' own, as its superuser."""
    with _running_postgres() as url:
        with psycopg.connect(url, autocommit=True) as connection:
            # The tests kill processes, not machines, so written data stays. Syncing took half of a test's time.
            connection.execute("alter system set fsync = off")
            connection.execute("select pg_reload_conf()")
        yield url


@contextmanager
def _running_postgres() -> Iterator[str]:
    if url := os.environ.get("TEST_POSTGRES_URL"):  # `make mutants` lets many runs share one
        yield url
        return
    with running_stack({"postgres"}) as postgres:
        yield postgres.admin_database_url


@pytest.fixture(scope="session")
def template_database(admin_database_url: str) -> str:
    """A migrated, empty database, to be copied."""
    with psycopg.connect(admin_database_url, autocommit=True) as connection:
        if connection.execute("select 1 from pg_database where datname = %s", [_TEMPLATE]).fetchone():
            return _TEMPLATE
        connection.execute(sql.SQL("create database {}").format(sql.Identifier(_TEMPLATE)))
    migrate(DatabaseSettings(url=SecretStr(_with_database(admin_database_url, _TEMPLATE))))
    return _TEMPLATE


@pytest.fixture
def database_url(admin_database_url: str, template_database: str) -> Iterator[str]:
    """A migrated, empty database of the test's own."""
    with fresh_database(admin_database_url, template_database) as url:
        yield url


@pytest.fixture(scope="module")
def shared_database_url(admin_database_url: str, template_database: str) -> Iterator[str]:
    """A migrated database that the tests of a module share, empty at first."""
    with fresh_database(admin_database_url, template_database) as url:
        yield url


@contextmanager
def fresh_database(admin_database_url: str, template: str) -> Iterator[str]:
    """Give a copy of the template database; dropped when the block ends."""
    name = f"test_{uuid.uuid4().hex[:12]}"
    create = sql.SQL("create database {} template {} strategy file_copy")
    # A busy machine may take minutes for what a test does within a transaction.
    patient = sql.SQL("alter database {} set idle_in_transaction_session_timeout = '10min'")
    drop = sql.SQL("drop database {} with (force)")
    with psycopg.connect(admin_database_url, autocommit=True) as connection:
        connection.execute(create.format(sql.Identifier(name), sql.Identifier(template)))
        connection.execute(patient.format(sql.Identifier(name)))
        yield _with_database(admin_database_url, name)
        connection.execute(drop.format(sql.Identifier(name)))


def _with_database(url: str, name: str) -> str:
    parts = conninfo_to_dict(url)
    return f"postgresql://{parts['user']}:{parts['password']}@{parts['host']}:{parts['port']}/{name}"
