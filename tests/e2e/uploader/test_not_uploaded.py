"""A dataset with `upload = false` never reaches a real Argilla."""

from pathlib import Path

import psycopg

from tests.e2e.uploader.conftest import AddTexts, ArgillaSpace, StartUploader
from tests.waiting import wait_for

DATASETS_FILE = Path(__file__).parents[3] / "load_testing" / "datasets.toml"


def test_its_texts_wait_while_another_dataset_is_uploaded(
    start_uploader: StartUploader, add_texts: AddTexts, argilla: ArgillaSpace, database_url: str, tmp_path: Path
) -> None:
    [waiting] = add_texts("of a load test")
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("update texts set dataset = 'loadtest' where id = %s", [waiting])
        with start_uploader(DATASETS_FILE=str(DATASETS_FILE)):
            add_texts("for annotators")
            wait_for(lambda: argilla.visible_count() == 1)
            status = connection.execute("select status from texts where id = %s", [waiting]).fetchone()
    assert status == ("pending",)
    names = [dataset["name"] for dataset in argilla.http.get("me/datasets").json()["items"]]
    assert "loadtest" not in names
    assert "define it in DATASETS_FILE" not in (tmp_path / "uploader.log").read_text()
