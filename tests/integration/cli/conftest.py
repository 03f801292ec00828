"""The database of a test, as the command line's tests reach it."""

from collections.abc import Iterator

import psycopg
import pytest
from pydantic import SecretStr
from sqlalchemy import Engine, create_engine

from core.settings import DatabaseSettings


@pytest.fixture
def connection(database_url: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(database_url, autocommit=True) as connection:
        yield connection


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    engine = create_engine(DatabaseSettings(url=SecretStr(database_url)).sqlalchemy_url)
    yield engine
    engine.dispose()
