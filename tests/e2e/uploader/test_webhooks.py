"""Webhooks of a real Argilla: its worker sends events, and each answer is a label within seconds."""

import signal
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import pytest

from local_stack.testing import RunningStack
from tests.e2e.uploader.conftest import AddTexts, Annotator, ArgillaSpace, StartUploader
from tests.e2e.uploader.stored import fetch, statuses
from tests.programs import running
from tests.waiting import wait_for
from uploader.argilla.webhook import EVENTS
from uploader.pull.collector import DELETED

# One look at the start, and no other one.
_NO_SWEEP = {"SWEEP_INTERVAL_SECONDS": "86400"}
_LABEL = "select label, status, annotations from labels where text_id = %s"


@dataclass(frozen=True)
class Way:
    """The programs between Argilla and a reader."""

    argilla: ArgillaSpace
    database_url: str
    ingestion_url: str
    serving_url: str
    uploader_url: str

    def upload(self, add_texts: AddTexts, *texts: str) -> dict[UUID, str]:
        """Return the ids of Argilla's records by our ids, once annotators see them and the first sweep is over."""
        ids = add_texts(*texts)
        wait_for(lambda: statuses(self.database_url) == {"uploaded": len(ids)})
        wait_for(lambda: fetch(self.database_url, "select swept_at is not null from datasets") == [(True,)])
        wait_for(self.is_registered)
        return {id_: str(self.argilla.record(id_)["id"]) for id_ in ids}

    def webhooks(self) -> list[dict[str, Any]]:
        """Return Argilla's webhooks for this ingestion API."""
        items = self.argilla.http.get("webhooks").raise_for_status().json()["items"]
        return [item for item in items if item["url"].startswith(self.ingestion_url)]

    def stored(self, id_: UUID) -> tuple[Any, ...] | None:
        """Return label, status and number of annotations in Postgres."""
        found = fetch(self.database_url, _LABEL, id_)
        return found[0] if found else None

    def served(self, id_: UUID) -> str | None:
        """Return the label that readers get."""
        answer = httpx.get(f"{self.serving_url}/texts/{id_}")
        return str(answer.json()["label"]) if answer.status_code == 200 else None

    def is_registered(self) -> bool:
        """Whether the uploader found its webhook as it should be."""
        return "uploader_webhook_registered 1.0" in httpx.get(f"{self.uploader_url}/metrics").text


@pytest.fixture
def start_way(
    stack: RunningStack,
    argilla: ArgillaSpace,
    start_uploader: StartUploader,
    database_url: str,
    tmp_path: Path,
) -> Iterator[Any]:
    """Start all three programs, without sweeps unless settings say otherwise; deletes the webhook at the end."""
    with ExitStack() as programs:

        def start(**changes: str) -> Way:
            env = {"DATABASE_URL": database_url, "DATA_DIR": str(tmp_path / "data")}
            ingestion = programs.enter_context(running("ingestion_api", env, tmp_path / "ingestion.log"))
            programs.callback(_delete_webhooks, argilla, ingestion.url)
            serving = programs.enter_context(running("serving_api", env, tmp_path / "serving.log", "/readyz"))
            settings = _NO_SWEEP | {"WEBHOOK_URL": ingestion.url, "WEBHOOK_CHECK_SECONDS": "1"} | changes
            uploader = programs.enter_context(start_uploader(**settings))
            return Way(argilla, database_url, ingestion.url, serving.url, uploader.url)

        yield start


def _delete_webhooks(argilla: ArgillaSpace, url: str) -> None:
    for webhook in argilla.http.get("webhooks").raise_for_status().json()["items"]:
        if webhook["url"].startswith(url):
            argilla.http.delete(f"webhooks/{webhook['id']}").raise_for_status()


def test_an_answer_is_a_label_without_a_sweep(start_way: Any, add_texts: AddTexts, argilla: ArgillaSpace) -> None:
    way = start_way()
    records = way.upload(add_texts, "one", "two", "three", "four")
    one, two, three, four = records
    ann = argilla.add_annotator("ann")
    response = ann.answer(records[one], "toxic")
    seconds = wait_for(lambda: way.served(one) == "toxic")
    print(f"from answer to reader: {seconds:.2f} s")  # noqa: T201 - a measurement
    assert way.stored(one) == ("toxic", "labelled", 1)

    ann.edit(response, "non_toxic")
    wait_for(lambda: way.served(one) == "non_toxic")
    ann.delete(response)
    wait_for(lambda: way.stored(one) == (None, "withdrawn", 0))
    wait_for(lambda: way.served(one) is None)
    ann.answer(records[one], "toxic")  # the same person again: another response
    wait_for(lambda: way.stored(one) == ("toxic", "labelled", 1))

    _answer_in_bulk(ann, [records[two], records[three]])
    wait_for(lambda: [way.stored(id_) for id_ in (two, three)] == [("toxic", "labelled", 1)] * 2)
    discarded = ann.discard(records[four])
    held = "select status from annotations where text_id = %s"
    wait_for(lambda: fetch(way.database_url, held, four) == [("discarded",)])
    ann.edit(discarded, "toxic")
    wait_for(lambda: way.stored(four) == ("toxic", "labelled", 1))

    # One answer completes a record; a second person's, and its edit, still come.
    bob = argilla.add_annotator("bob")
    second = bob.answer(records[four], "toxic")
    wait_for(lambda: way.stored(four) == ("toxic", "labelled", 2))
    bob.edit(second, "non_toxic")
    wait_for(lambda: way.stored(four) == (None, "disputed", 2))


def _answer_in_bulk(annotator: Annotator, record_ids: list[str]) -> None:
    items = [
        {"record_id": id_, "status": "submitted", "values": {"label": {"value": "toxic"}}} for id_ in record_ids
    ]
    annotator.http.post("me/responses/bulk", json={"items": items}).raise_for_status()


def test_a_deleted_record_fails_its_text_and_can_be_brought_back(
    start_way: Any, add_texts: AddTexts, argilla: ArgillaSpace
) -> None:
    way = start_way()
    records = way.upload(add_texts, "one", "two")
    one, two = records
    ann = argilla.add_annotator("ann")
    for record in records.values():
        ann.answer(record, "toxic")
    wait_for(lambda: way.stored(one) == way.stored(two) == ("toxic", "labelled", 1))
    argilla.http.delete(f"records/{records[one]}").raise_for_status()
    wait_for(lambda: way.stored(one) == (None, "withdrawn", 0))
    text = httpx.get(f"{way.ingestion_url}/texts/{one}").json()
    assert (text["status"], text["last_error"]) == ("failed", DELETED)
    assert way.stored(two) == ("toxic", "labelled", 1)

    fetch_none = "update texts set status = 'pending' where id = %s returning id"
    fetch(way.database_url, fetch_none, one)  # as `annotate uploads retry` does
    wait_for(lambda: statuses(way.database_url) == {"uploaded": 2})
    ann.answer(str(argilla.record(one)["id"]), "non_toxic")
    wait_for(lambda: way.stored(one) == ("non_toxic", "labelled", 1))


def test_the_webhook_is_renewed_whatever_became_of_it(
    start_way: Any, add_texts: AddTexts, argilla: ArgillaSpace
) -> None:
    way = start_way()
    records = way.upload(add_texts, "one")
    [one] = records
    [webhook] = way.webhooks()
    assert set(webhook["events"]) == set(EVENTS)
    argilla.http.patch(
        f"webhooks/{webhook['id']}", json={"enabled": False, "events": ["dataset.created"]}
    ).raise_for_status()
    wait_for(lambda: [w["enabled"] and set(w["events"]) == set(EVENTS) for w in way.webhooks()] == [True])
    argilla.http.delete(f"webhooks/{webhook['id']}").raise_for_status()
    wait_for(lambda: [w["id"] != webhook["id"] for w in way.webhooks()] == [True])
    known = "select id::text from webhooks"
    wait_for(lambda: fetch(way.database_url, known) == [(way.webhooks()[0]["id"],)])
    argilla.add_annotator("ann").answer(records[one], "toxic")
    wait_for(lambda: way.stored(one) == ("toxic", "labelled", 1))


def test_answers_whose_events_were_lost_come_with_a_sweep(
    start_way: Any, add_texts: AddTexts, argilla: ArgillaSpace, stack: RunningStack
) -> None:
    way = start_way(SWEEP_INTERVAL_SECONDS="0.5", COUNT_INTERVAL_SECONDS="2")
    records = way.upload(add_texts, "one", "two")
    one, two = records
    ann = argilla.add_annotator("ann")
    ann.answer(records[one], "toxic")
    wait_for(lambda: way.stored(one) == ("toxic", "labelled", 1))
    stack.kill("argilla_worker", signal.SIGSTOP)
    try:
        edited = ann.answer(records[two], "toxic")
        wait_for(lambda: way.stored(two) == ("toxic", "labelled", 1))
        ann.edit(edited, "non_toxic")
        wait_for(lambda: way.stored(two) == ("non_toxic", "labelled", 1))
    finally:
        stack.kill("argilla_worker", signal.SIGCONT)
    # A deleted user causes neither activity nor an event: the counts reveal it.
    argilla.http.delete(f"users/{ann.id}").raise_for_status()
    wait_for(lambda: way.stored(one) == way.stored(two) == (None, "withdrawn", 0))


def test_a_stranger_is_refused(start_way: Any, add_texts: AddTexts) -> None:
    way = start_way()
    way.upload(add_texts, "one")
    headers = {"webhook-id": "1", "webhook-timestamp": "1", "webhook-signature": "v1,AAAA"}
    answer = httpx.post(f"{way.ingestion_url}/webhooks/argilla", content=b"{}", headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (401, "bad_signature")
