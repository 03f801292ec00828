"""What annotators have before them in a real Argilla, and what they see first."""

from pathlib import Path
from typing import Any

import psycopg

from core.datasets import page_path
from tests.e2e.uploader.conftest import DATASET, AddTexts, Annotator, ArgillaSpace, StartUploader
from tests.waiting import wait_for

_DEFINITION = """
[toxicity]
labels = ["toxic", "non_toxic"]
guidelines = "Decide."
order = "uncertain"
"""


def _page(annotator: Annotator, dataset_id: str) -> list[dict[str, Any]]:
    """Return what the address in the guidelines makes Argilla's page search for."""
    pending = {"type": "terms", "scope": {"entity": "response", "property": "status"}, "values": ["pending"]}
    order = {"scope": {"entity": "metadata", "metadata_property": "position"}, "order": "asc"}
    body = {"filters": {"and": [pending]}, "sort": [order]}
    answer = annotator.http.post(f"me/datasets/{dataset_id}/records/search", json=body, params={"limit": 50})
    return [item["record"] for item in answer.raise_for_status().json()["items"]]


def test_annotators_get_so_many_the_most_uncertain_first(
    start_uploader: StartUploader, add_texts: AddTexts, argilla: ArgillaSpace, database_url: str, tmp_path: Path
) -> None:
    definition = tmp_path / "datasets.toml"
    definition.write_text(_DEFINITION)
    for n in range(30):
        # As they come, they are in no order of certainty: 0, 7, 14, 21, 28, 5, …
        add_texts(f"text {n * 7 % 30}", score=0.5 + n * 7 % 30 / 100)
    wanted = [f"text {n}" for n in range(30)]
    with start_uploader(DATASETS_FILE=str(definition), MAX_OPEN_RECORDS="10"):
        wait_for(lambda: argilla.visible_count() == 10)
        dataset = argilla.dataset()
        assert page_path(dataset["id"]) in dataset["guidelines"]
        annotator = argilla.add_annotator("first")
        page = _page(annotator, dataset["id"])
        assert [record["fields"]["text"] for record in page] == wanted[:10]
        # With each answer one more comes, and never two.
        for record in page[:4]:
            annotator.answer(record["id"], "toxic")
        wait_for(lambda: argilla.visible_count() >= 14)
        assert [r["fields"]["text"] for r in _page(annotator, dataset["id"])] == wanted[4:14]
        # A new one that is more uncertain than all others is next when there is room.
        add_texts("new", score=0.5)
        annotator.answer(page[4]["id"], "toxic")
        wait_for(lambda: argilla.visible_count() == 15)
        assert [r["fields"]["text"] for r in _page(annotator, dataset["id"])] == ["new", *wanted[5:14]]
    with psycopg.connect(database_url) as connection:
        open_ = "select count(*) from texts where dataset = %s and status = 'uploaded' and completed_at is null"
        assert connection.execute(open_, [DATASET]).fetchone() == (10,)
