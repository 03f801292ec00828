"""The serving API in this process, on a real Postgres."""

import gc
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql
from pydantic import SecretStr
from sqlalchemy import Engine, create_engine
from starlette.testclient import TestClient

from core.datasets import Datasets, load_datasets
from core.settings import AccessSettings, DatabaseSettings
from serving_api.main import create_app
from serving_api.replica.replica import Replica
from serving_api.settings import DataSettings, ReplicaSettings, ServingSettings
from tests.conftest import fresh_database
from tests.integration.serving_api.labelling import Labeller

# Applications without keys answer no other Host.
LOCAL = "http://127.0.0.1"

Serve = Callable[..., AbstractContextManager[TestClient]]


@dataclass(frozen=True)
class World:
    """An application with a new database."""

    client: TestClient
    database: DatabaseSettings
    engine: Engine
    labeller: Labeller
    folder: Path

    @property
    def replica(self) -> Replica:
        """What the application answers from."""
        replica: Replica = self.client.app.state.replica  # type: ignore[attr-defined]
        return replica


@pytest.fixture(scope="session", autouse=True)
def _unsettled() -> Iterator[None]:
    """Cache the work of each application's first request: half of a start's time, a hundred times."""
    gc.collect()
    gc.freeze()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("serving_api.main.settle", lambda app: None)
        yield


def make_client(
    folder: Path,
    database: DatabaseSettings,
    *,
    datasets: Datasets | None = None,
    require_api_key: bool = False,
    serving: ServingSettings | None = None,
    poll_seconds: float = 0.05,
) -> TestClient:
    """Return a client of a new application; entering it starts the application, leaving it stops it."""
    app = create_app(
        serving or ServingSettings(),
        ReplicaSettings().model_copy(update={"poll_seconds": poll_seconds}),  # also over its limit
        DataSettings(data_dir=folder),
        database,
        AccessSettings(require_api_key=require_api_key),
        datasets or load_datasets(None),
    )
    return TestClient(app, LOCAL, raise_server_exceptions=False)


@contextmanager
def fresh_world(admin_database_url: str, template: str, folder: Path) -> Iterator[World]:
    """Give an application, not yet started, on a new database, which is dropped when the block ends."""
    with fresh_database(admin_database_url, template) as url:
        database = DatabaseSettings(url=SecretStr(url))
        engine = create_engine(database.sqlalchemy_url)
        yield World(make_client(folder, database), database, engine, Labeller(engine), folder)
        engine.dispose()


@pytest.fixture(scope="module")
def shared(
    admin_database_url: str, template_database: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[World]:
    """One application for all tests of a module: they add labels at the beginning, and then only read."""
    folder = tmp_path_factory.mktemp("shared")
    with fresh_world(admin_database_url, template_database, folder) as world, world.client:
        yield world


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
    """Makes a client of a new application of the test's own, as `make_client` does."""

    def make(*, database: DatabaseSettings = database, **changes: Any) -> AbstractContextManager[TestClient]:
        return make_client(tmp_path, database, **changes)

    return make


@pytest.fixture
def environment(database_url: str, tmp_path: Path) -> dict[str, str]:
    """Settings of a serving API that runs as a program on the test's database."""
    return {"DATABASE_URL": database_url, "DATA_DIR": str(tmp_path), "REPLICA_POLL_SECONDS": "0.05"}


@pytest.fixture
def client(serve: Serve) -> Iterator[TestClient]:
    with serve() as client:
        yield client


@pytest.fixture
def replica(client: TestClient) -> Replica:
    replica: Replica = client.app.state.replica  # type: ignore[attr-defined]
    return replica
