"""Tests of core.connections: what its connections say."""

import pytest
from pydantic import SecretStr
from sqlalchemy import text
from sqlalchemy.exc import DataError

from core.connections import make_engine
from core.settings import DatabaseSettings


def test_errors_do_not_quote_the_parameters_of_a_statement(database_url: str) -> None:
    """Errors are logged, and parameters are texts that may have to be forgotten."""
    engine = make_engine(DatabaseSettings(url=SecretStr(database_url)), "test")
    with engine.connect() as connection, pytest.raises(DataError) as caught:
        connection.execute(text("select 1 / 0 where :words <> ''"), {"words": "Zoë Quandt"})
    engine.dispose()
    assert "Quandt" not in str(caught.value)
