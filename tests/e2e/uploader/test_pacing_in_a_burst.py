"""Fifty thousand texts arrive in a burst, and annotators of a real Argilla notice nothing of it."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

import psycopg
import pytest

from core.text_identity import text_id
from tests.e2e.uploader.conftest import DATASET, AddTexts, Annotator, ArgillaSpace, StartUploader
from tests.waiting import wait_for

pytestmark = [pytest.mark.soak, pytest.mark.timeout(600)]

LIMIT = 200
BURST = 50_000
ROUNDS = 4
ANSWERS = 50  # in each round
TOP_UP_SECONDS = 10  # "within seconds", on a machine that Argilla's index and everything else share


@dataclass
class _Watch:
    """The annotators' queue in Argilla, at every check."""

    argilla: ArgillaSpace
    pending: list[int] = field(default_factory=list)

    def look(self, total: int) -> bool:
        """Return whether there are `total` records now, and as many without an answer as there should be."""
        path = f"datasets/{self.argilla.dataset()['id']}/progress"
        progress = self.argilla.http.get(path).raise_for_status().json()
        self.pending.append(progress["pending"])
        return bool(progress["total"] == total and progress["pending"] == LIMIT)


@contextmanager
def _arriving(database_url: str) -> Iterator[None]:
    """Have the burst come in while the block runs, as a bulk upload stores it; it is there when the block ends."""
    statement = "copy texts (id, dataset, text) from stdin"

    def insert() -> None:
        with psycopg.connect(database_url) as connection, connection.cursor().copy(statement) as copy:
            for n in range(BURST):
                copy.write_row((text_id(DATASET, f"burst {n}"), DATASET, f"burst {n}"))

    thread = threading.Thread(target=insert)
    thread.start()
    yield
    thread.join()


def _answer(annotator: Annotator, dataset_id: str) -> None:
    """Answer what Argilla shows as not answered."""
    pending = {"type": "terms", "scope": {"entity": "response", "property": "status"}, "values": ["pending"]}
    path = f"me/datasets/{dataset_id}/records/search"
    found = annotator.http.post(path, json={"filters": {"and": [pending]}}, params={"limit": ANSWERS})
    values = {"label": {"value": "toxic"}}
    items = [
        {"record_id": item["record"]["id"], "status": "submitted", "values": values}
        for item in found.raise_for_status().json()["items"]
    ]
    assert len(items) == ANSWERS
    annotator.http.post("me/responses/bulk", json={"items": items}).raise_for_status()


def test_a_burst_does_not_flood_annotators_nor_starve_them(
    argilla: ArgillaSpace, start_uploader: StartUploader, add_texts: AddTexts, database_url: str
) -> None:
    add_texts(*(f"text {n}" for n in range(LIMIT)))
    with start_uploader(MAX_OPEN_RECORDS=str(LIMIT)):
        wait_for(lambda: argilla.visible_count() == LIMIT, 60)
        watch, annotator = _Watch(argilla), argilla.add_annotator("steady")
        dataset_id = argilla.dataset()["id"]
        with _arriving(database_url):
            for done in range(1, ROUNDS + 1):
                _answer(annotator, dataset_id)
                wait_for(partial(watch.look, LIMIT + done * ANSWERS), TOP_UP_SECONDS)
    assert max(watch.pending) == LIMIT
    with psycopg.connect(database_url) as connection:
        waiting = connection.execute("select count(*) from texts where status = 'pending'").fetchone()
    assert waiting == (BURST - ROUNDS * ANSWERS,)
