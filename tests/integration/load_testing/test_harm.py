"""A load test leaves the annotators of the platform under load alone, and removes its texts."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import psycopg
import pytest

from load_testing.targets import find_target
from tests.integration.load_testing.running import ROOT, EndedRun, run_file
from tests.integration.load_testing.small_platform import small_platform
from tests.programs import Program, running

DATASETS_FILE = str(ROOT / "load_testing" / "datasets.toml")
# The first text of each run looks as if the uploader had sent it to annotators.
UPLOAD = """
create function upload() returns trigger language plpgsql as $$
begin if new.external_id like '%-0' then new.status := 'uploaded'; end if; return new; end $$;
create trigger upload before insert on texts for each row execute function upload();
"""


@pytest.fixture(scope="module")
def api(shared_database_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    env = {"DATABASE_URL": shared_database_url, "DATASETS_FILE": DATASETS_FILE}
    with running("ingestion_api", env, tmp_path_factory.mktemp("api") / "log") as api:
        for text in ({"text": "for annotators"}, {"text": "of another load test", "dataset": "loadtest"}):
            assert httpx.post(f"{api.url}/texts", json=text).status_code == 201
        yield api


def _run(api: Program, tmp_path: Path, database: str, keep: int) -> EndedRun:
    options = {"shape": "soak", "run_time": "2s", "users": 4, "keep": keep}
    with small_platform() as serving:
        return run_file(
            "locustfile.py", tmp_path / "run", api.url, serving.url, {"DATABASE_URL": database}, **options
        )


def _texts(database: str) -> dict[str, int]:
    with psycopg.connect(database) as connection:
        return dict(connection.execute("select dataset, count(*) from texts group by dataset").fetchall())


def test_its_texts_stay_in_a_dataset_of_their_own_if_asked(
    api: Program, shared_database_url: str, tmp_path: Path
) -> None:
    before = _texts(shared_database_url)
    code, run, log = _run(api, tmp_path, shared_database_url, keep=1)
    assert code == 0, log
    assert run.said["acknowledged"] > 0
    assert _texts(shared_database_url) == before | {"loadtest": before["loadtest"] + run.said["acknowledged"]}
    names = {request.name for request in run.requests}
    assert names >= {"ingestion: /texts (new)", "serving: /texts (newest)"}


def test_its_texts_are_removed_and_those_that_reached_annotators_fail_the_run(
    api: Program, shared_database_url: str, tmp_path: Path
) -> None:
    before = _texts(shared_database_url)
    with psycopg.connect(shared_database_url, autocommit=True) as connection:
        connection.execute(UPLOAD)
        code, run, log = _run(api, tmp_path, shared_database_url, keep=0)
        connection.execute("drop trigger upload on texts")
    assert code == 1
    assert run.said["problems"] == ["1 texts went to annotators: the dataset loadtest needs `upload = false`"]
    assert f"{run.said['acknowledged'] - 1:,} texts removed from the dataset loadtest" in log
    assert _texts(shared_database_url) == before | {"loadtest": before["loadtest"] + 1}


def test_a_platform_without_such_a_dataset_is_left_alone(api: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INGESTION_URL", api.url)
    monkeypatch.setenv("SERVING_URL", api.url)
    with pytest.raises(SystemExit) as refusal, find_target(0, "elsewhere"):
        pytest.fail("The load test would begin.")
    assert f"{api.url} has no dataset elsewhere" in str(refusal.value)
    assert "DATASETS_FILE=load_testing/datasets.toml" in str(refusal.value)
