"""What the programs store, only their owner may read, whatever the umask of the shell that starts them."""

import stat
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from pydantic import SecretStr
from sqlalchemy import create_engine

from core.settings import DatabaseSettings
from tests.integration.serving_api.labelling import Labeller
from tests.permissions import open_to_others
from tests.programs import Program, run, running
from tests.waiting import wait_for


@pytest.fixture
def serving(database_url: str, tmp_path: Path) -> Iterator[Program]:
    """A serving API with some labels, on the data directory of an older version."""
    engine = create_engine(DatabaseSettings(url=SecretStr(database_url)).sqlalchemy_url)
    for number in range(5):
        Labeller(engine).add_label(f"text {number}")
    engine.dispose()
    for folder in ("serving", "snapshots"):
        (tmp_path / "data" / folder).mkdir(mode=0o755, parents=True)
        (tmp_path / "data" / folder).chmod(0o755)
    env = {"DATABASE_URL": database_url, "DATA_DIR": str(tmp_path / "data")}
    with running("serving_api", env, tmp_path / "log", "/readyz") as program:
        yield program


def test_replica_search_index_and_snapshots_are_for_their_owner_only(serving: Program, tmp_path: Path) -> None:
    wait_for(lambda: httpx.get(f"{serving.url}/texts").json()["items"] != [])
    httpx.post(f"{serving.url}/snapshots", json={"name": "first"}).raise_for_status()
    written = {path.suffix for path in (tmp_path / "data").rglob("*")}
    assert {".duckdb", ".parquet"} <= written
    assert open_to_others(tmp_path / "data" / "serving") == {}
    assert open_to_others(tmp_path / "data" / "snapshots") == {}


def test_a_new_data_directory_is_for_its_owner_only(database_url: str, tmp_path: Path) -> None:
    env = {"DATABASE_URL": database_url, "DATA_DIR": str(tmp_path / "new")}
    with running("serving_api", env, tmp_path / "log", "/readyz"):
        assert open_to_others(tmp_path / "new") == {}


def test_what_the_command_line_writes_is_for_its_owner_only(serving: Program, tmp_path: Path) -> None:
    env = {"SERVING_URL": serving.url}
    result = run("cli", "export", str(tmp_path / "labels.csv"), env=env)
    assert result.returncode == 0, result.stderr
    assert stat.S_IMODE((tmp_path / "labels.csv").stat().st_mode) == 0o600
