"""The serving API in this process, on a real Postgres."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import psycopg
import pytest
from psycopg import sql
from pydantic import SecretStr
from sqlalchemy import Engine, create_engine
from starlette.testclient import TestClient

from core.datasets import Datasets, load_datasets
from core.settings import AccessSettings, DatabaseSettings
from serving_api.main import create_app
from serving_api.replica import Replica
from serving_api.settings import DataSettings, ReplicaSettings, ServingSettings
from tests.integration.serving_api.labelling import Labeller

Serve = Callable[..., AbstractContextManager[TestClient]]


@pytest.fixture
def database(database_url: str) -> DatabaseSettings:
    return DatabaseSettings(url=SecretStr(database_url))


@pytest.fixture
def other_database_url(database_url: str, template_database: str) -> Iterator[str]:
    """A second empty database in the same cluster."""
    url, _, name = database_url.rpartition("/")
    other = sql.Identifier(f"{name}_other")
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(
            sql.SQL("create database {} template {}").format(other, sql.Identifier(template_database))
        )
        yield f"{url}/{name}_other"
        connection.execute(sql.SQL("drop database {} with (force)").format(other))


@pytest.fixture
def engine(database: DatabaseSettings) -> Iterator[Engine]:
    engine = create_engine(database.sqlalchemy_url)
    yield engine
    engine.dispose()


@pytest.fixture
def labeller(engine: Engine) -> Labeller:
    return Labeller(engine)


@pytest.fixture
def serve(database: DatabaseSettings, tmp_path: Path) -> Serve:
    """Makes a client of a new application; entering it starts the application, leaving it stops it."""

    def make(
        *,
        datasets: Datasets | None = None,
        require_api_key: bool = False,
        serving: ServingSettings | None = None,
        database: DatabaseSettings = database,
    ) -> AbstractContextManager[TestClient]:
        app = create_app(
            serving or ServingSettings(),
            ReplicaSettings(poll_seconds=0.05),
            DataSettings(data_dir=tmp_path),
            database,
            AccessSettings(require_api_key=require_api_key),
            datasets or load_datasets(None),
        )
        return TestClient(app, raise_server_exceptions=False)

    return make


@pytest.fixture
def client(serve: Serve) -> Iterator[TestClient]:
    with serve() as client:
        yield client


@pytest.fixture
def replica(client: TestClient) -> Replica:
    replica: Replica = client.app.state.replica  # type: ignore[attr-defined]
    return replica
