"""A client of the shared ingestion API, with its tables emptied, and an API of the test's own."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import psycopg
import pytest

from core.migrate import migrate
from core.settings import DatabaseSettings
from local_stack.testing import RunningStack, running_stack
from tests.programs import Program, running


@pytest.fixture
def connection(shared_database_url: str) -> Iterator[psycopg.Connection]:
    """The shared API's database, empty."""
    with psycopg.connect(shared_database_url, autocommit=True) as connection:
        connection.execute(
            "truncate texts, labels, annotations, alerts, near_duplicates, near_duplicate_bands, "
            "imports, import_chunks, import_rejects restart identity"
        )
        yield connection


@pytest.fixture
def client(shared_ingestion: Program, connection: psycopg.Connection) -> Iterator[httpx.Client]:
    """A client of the shared API."""
    with httpx.Client(base_url=shared_ingestion.url, timeout=30) as client:
        yield client


@pytest.fixture
def ingestion(database_url: str, tmp_path: Path) -> Iterator[Program]:
    """An API that a test may kill."""
    with running("ingestion_api", {"DATABASE_URL": database_url}, tmp_path / "ingestion.log") as program:
        yield program


@pytest.fixture
def own_postgres() -> Iterator[RunningStack]:
    """A Postgres that a test may kill without harm to the others."""
    with running_stack({"postgres"}) as stack:
        migrate(DatabaseSettings.model_validate({"url": stack.database_url}))
        yield stack
