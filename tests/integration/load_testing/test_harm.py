"""A load test leaves the annotators of the platform under load alone, and removes its texts."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import psycopg
import pytest

from core.datasets import DEFAULT_DATASET, Dataset, list_adjudications
from tests.integration.load_testing.running import ROOT, Ended, load_test
from tests.integration.load_testing.small_platform import small_platform
from tests.programs import Program, running

DATASETS_FILE = str(ROOT / "load_testing" / "datasets.toml")


@pytest.fixture
def api(database_url: str, tmp_path: Path) -> Iterator[Program]:
    env = {"DATABASE_URL": database_url, "DATASETS_FILE": DATASETS_FILE}
    with running("ingestion_api", env, tmp_path / "api.log") as api:
        yield api


def _run(api: Program, tmp_path: Path, env: dict[str, str], **options: object) -> Ended:
    folder = tmp_path / "results"
    folder.mkdir()
    short = {"models": "closed", "shape": "soak", "seconds": 2, "users": 4, "repeats": 1}
    with small_platform() as serving:
        return load_test(folder, api.url, serving.url, env, **short, **options)


def _count(database_url: str, dataset: str) -> int:
    with psycopg.connect(database_url) as connection:
        row = connection.execute("select count(*) from texts where dataset = %s", [dataset]).fetchone()
    return row[0] if row else 0


def test_its_texts_go_into_a_dataset_of_their_own_and_are_removed(
    api: Program, database_url: str, tmp_path: Path
) -> None:
    others = [{"text": "for annotators"}, {"text": "of another load test", "dataset": "loadtest"}]
    for text in others:
        assert httpx.post(f"{api.url}/texts", json=text).status_code == 201
    ended = _run(api, tmp_path, {"DATABASE_URL": database_url})
    assert ended.code == 0, ended.output
    [run] = ended.report["runs"]
    assert f"{run['acknowledged']:,} acknowledged, 0 lost" in ended.output
    log = (ended.folder / "closed-1" / "locust.log").read_text()
    assert f"{run['acknowledged']:,} texts removed from the dataset loadtest" in log
    names = {row["name"] for row in run["by_name"]}
    assert names >= {"ingestion: POST /texts (new)", "serving: GET /texts (newest)"}
    assert (_count(database_url, DEFAULT_DATASET), _count(database_url, "loadtest")) == (1, 1)


@pytest.mark.parametrize("keep", [True, False])
def test_its_texts_stay_if_asked_or_if_postgres_is_not_known(
    api: Program, database_url: str, tmp_path: Path, keep: bool
) -> None:
    env = {"DATABASE_URL": database_url if keep else "", "DATA_DIR": str(tmp_path)}
    ended = _run(api, tmp_path, env, keep=int(keep))
    assert ended.code == 0, ended.output
    assert _count(database_url, "loadtest") == ended.report["runs"][0]["acknowledged"] > 0
    said = "set DATABASE_URL to have them removed" in (ended.folder / "closed-1" / "locust.log").read_text()
    assert said is not keep


def test_texts_that_reached_annotators_fail_the_run(api: Program, database_url: str, tmp_path: Path) -> None:
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(
            "create function upload() returns trigger language plpgsql as "
            "$$ begin if new.external_id like '%-0' then new.status := 'uploaded'; end if; return new; end $$"
        )
        connection.execute("create trigger upload before insert on texts for each row execute function upload()")
    ended = _run(api, tmp_path, {"DATABASE_URL": database_url})
    assert ended.code == 1
    assert "1 texts went to annotators: the dataset loadtest needs `upload = false`" in ended.output
    assert _count(database_url, "loadtest") == 1


def test_a_platform_without_such_a_dataset_is_left_alone(database_url: str, tmp_path: Path) -> None:
    with running("ingestion_api", {"DATABASE_URL": database_url}, tmp_path / "api.log") as api:
        ended = _run(api, tmp_path, {"DATABASE_URL": database_url})
    assert ended.code == 1
    assert f"{api.url} has no dataset loadtest" in ended.output
    assert "DATASETS_FILE=load_testing/datasets.toml" in ended.output
    assert _count(database_url, DEFAULT_DATASET) == 0


def test_no_adjudicators_where_there_are_no_annotators() -> None:
    dataset = Dataset(labels=("a", "b"), guidelines="g", dispute_extra=1)
    assert list_adjudications({"a": dataset}) == ["a-adjudication"]
    assert list_adjudications({"a": dataset.model_copy(update={"upload": False})}) == []
