"""A database that holds the texts of `answering`."""

from collections.abc import Iterator

import pytest
import sqlalchemy as sa
from pydantic import SecretStr

from core.models import Text
from core.settings import DatabaseSettings
from tests.integration.core.answering import TEXTS


@pytest.fixture
def engine(database_url: str) -> Iterator[sa.Engine]:
    engine = sa.create_engine(DatabaseSettings(url=SecretStr(database_url)).sqlalchemy_url)
    with engine.begin() as connection:
        rows = [{"id": id_, "dataset": "toxicity", "text": f"text {n}"} for n, id_ in enumerate(TEXTS)]
        connection.execute(sa.insert(Text), rows)
    yield engine
    engine.dispose()
