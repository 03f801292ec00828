from pathlib import Path

import duckdb
import pytest

from serving_api.duckdb_connection import open_database
from serving_api.settings import ReplicaSettings


@pytest.mark.parametrize(
    "statement",
    [
        "select * from read_csv('/etc/passwd')",
        "select * from read_text('/etc/passwd')",
        "copy (select 1) to '/tmp/out.csv'",
        "attach '/tmp/other.duckdb'",
        "install httpfs",
        "load httpfs",
        "set enable_external_access = true",
        "set memory_limit = '100GB'",
        "select * from secret_variable",
    ],
)
def test_database_is_locked(tmp_path: Path, statement: str) -> None:
    secret_variable = [1]
    with open_database(tmp_path / "x.duckdb", ReplicaSettings()) as connection, pytest.raises(duckdb.Error):
        connection.execute(statement)
    assert secret_variable


def test_limits_are_set(tmp_path: Path) -> None:
    settings = ReplicaSettings(memory_limit="300MB", threads=1)
    with open_database(tmp_path / "x.duckdb", settings) as connection:
        values = connection.execute(
            "select current_setting('threads'), current_setting('memory_limit')"
        ).fetchall()
    assert values == [(1, "286.1 MiB")]
