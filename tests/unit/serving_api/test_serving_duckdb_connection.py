from pathlib import Path

import duckdb
import pytest
from fsspec.implementations.local import LocalFileSystem

from serving_api.replica.file import open_database, open_memory, open_readable
from serving_api.settings import ReplicaSettings

STATEMENTS = [
    "select * from read_csv('/etc/passwd')",
    "select * from read_text('/etc/passwd')",
    "copy (select 1) to '/tmp/out.csv'",
    "attach '/tmp/other.duckdb'",
    "install httpfs",
    "load httpfs",
    "set enable_external_access = true",
    "set memory_limit = '100GB'",
    "set temp_directory = '/tmp'",
    "select * from secret_variable",
]


@pytest.mark.parametrize("statement", STATEMENTS)
def test_database_is_locked(tmp_path: Path, statement: str) -> None:
    secret_variable = [1]
    with open_database(tmp_path / "x.duckdb", ReplicaSettings()) as connection, pytest.raises(duckdb.Error):
        connection.execute(statement)
    assert secret_variable


@pytest.mark.parametrize("statement", STATEMENTS)
def test_a_database_in_memory_is_locked(statement: str) -> None:
    secret_variable = [1]
    with open_memory(ReplicaSettings()) as connection, pytest.raises(duckdb.Error):
        connection.execute(statement)
    assert secret_variable


@pytest.mark.parametrize("statement", [*STATEMENTS, "select * from read_text('{folder}/../other/x')"])
def test_a_database_that_reads_a_folder_reads_no_other_file(tmp_path: Path, statement: str) -> None:
    for folder in ("it's", "other"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "x").write_text(folder)
    folder = str(tmp_path / "it's").replace("'", "''")
    with open_readable(ReplicaSettings(), str(tmp_path / "it's"), LocalFileSystem()) as connection:
        assert connection.execute("select content from read_text(?)", [str(tmp_path / "it's" / "x")]).fetchall()
        with pytest.raises(duckdb.Error):
            connection.execute(statement.format(folder=folder))


def test_a_database_in_memory_writes_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with open_memory(ReplicaSettings(memory_limit="20MB", threads=1)) as connection:
        with pytest.raises(duckdb.OutOfMemoryException):
            connection.execute(
                "create temp table large as select hash(n) || repeat('x', 100) from range(1000000) r(n)"
            )
        connection.execute("select 1")
    assert list(tmp_path.iterdir()) == []


def test_limits_are_set(tmp_path: Path) -> None:
    settings = ReplicaSettings(memory_limit="300MB", threads=1)
    with open_database(tmp_path / "x.duckdb", settings) as connection:
        values = connection.execute(
            "select current_setting('threads'), current_setting('memory_limit')"
        ).fetchall()
    assert values == [(1, "286.1 MiB")]
