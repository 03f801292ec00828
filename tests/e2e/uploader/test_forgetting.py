"""Forgetting on a real Argilla: the record, its responses and its place in the search are gone for good."""

import uuid
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from core.connections import make_engine
from core.forgetting.service import Traces, forget_texts
from core.settings import DatabaseSettings
from local_stack.testing import RunningStack
from tests.e2e.uploader.conftest import AddTexts, ArgillaSpace, StartUploader
from tests.e2e.uploader.stored import fetch, statuses
from tests.waiting import wait_for

_WORDS = "Jane Roe, 12 Elm Street"
# No upload is under way longer than a call plus a lease.
QUICK = {
    "UPLOADER_ARGILLA_TIMEOUT_SECONDS": "5",
    "UPLOAD_LEASE_SECONDS": "1",
    "COUNT_INTERVAL_SECONDS": "1",
    "WEBHOOK_GRACE_SECONDS": "1",
}


def _forget(database_url: str, id_: uuid.UUID) -> None:
    engine = make_engine(DatabaseSettings(url=SecretStr(database_url)), "test")
    with engine.begin() as connection:
        assert forget_texts(connection, [id_], Traces(), "tester") == [id_]
    engine.dispose()


def _put(argilla: ArgillaSpace, id_: uuid.UUID) -> None:
    """Send the text as an upload does that was held up on its way."""
    items = [{"external_id": str(id_), "fields": {"text": _WORDS}}]
    path = f"datasets/{argilla.dataset()['id']}/records/bulk"
    argilla.http.put(path, json={"items": items}).raise_for_status()


def _stored(argilla: ArgillaSpace) -> list[Any]:
    path = f"datasets/{argilla.dataset()['id']}/records"
    records = argilla.http.get(path, params={"limit": 100, "include": "responses"}).json()["items"]
    return [(record["external_id"], record["fields"]["text"]) for record in records]


@pytest.mark.soak
def test_a_forgotten_text_is_gone_from_argilla_and_stays_so(
    start_uploader: StartUploader, add_texts: AddTexts, argilla: ArgillaSpace, database_url: str
) -> None:
    id_, other = add_texts(_WORDS, "another", metadata='{"street": "Elm Street"}')
    done = "select argilla_at is not null, argilla_note from forget_requests"
    with start_uploader(**QUICK):
        wait_for(lambda: statuses(database_url) == {"uploaded": 2})
        argilla.add_annotator("ann").answer(argilla.record(id_)["id"], "toxic")
        wait_for(lambda: fetch(database_url, "select label from labels") == [("toxic",)])
        _forget(database_url, id_)
        wait_for(lambda: fetch(database_url, "select removed_at is not null from forget_requests") == [(True,)])
        assert _stored(argilla) == [(str(other), "another")]
        assert argilla.visible_count() == 1
        _put(argilla, id_)  # before it is for sure that none can come
        wait_for(lambda: fetch(database_url, done) == [(True, None)])
        assert _stored(argilla) == [(str(other), "another")]
        _put(argilla, id_)  # long after: the counts show it, and the sweep takes it out
        wait_for(lambda: _stored(argilla) == [(str(other), "another")])
        assert argilla.visible_count() == 1
    assert fetch(database_url, "select count(*) from annotations") == [(0,)]


@pytest.mark.soak
def test_a_dataset_that_lost_its_index_is_cleared_too(
    stack: RunningStack,
    start_uploader: StartUploader,
    add_texts: AddTexts,
    argilla: ArgillaSpace,
    database_url: str,
) -> None:
    """Healing sets such a dataset aside; Argilla ends each change of it with an error, after it was stored."""
    id_, other = add_texts(_WORDS, "another")
    with start_uploader(**QUICK):
        wait_for(lambda: statuses(database_url) == {"uploaded": 2})
        aside = argilla.dataset()["id"]
        httpx.delete(f"{stack.opensearch_url}/rg.{aside}").raise_for_status()
        new = f"select argilla_dataset_id <> '{aside}' from datasets"  # noqa: S608 - the test's own
        wait_for(lambda: fetch(database_url, new) == [(True,)])
        wait_for(lambda: statuses(database_url) == {"uploaded": 2})
        assert argilla.http.get(f"datasets/{aside}").json()["name"].startswith("toxicity_lost_")
        _forget(database_url, id_)
        wait_for(lambda: fetch(database_url, "select removed_at is not null from forget_requests") == [(True,)])
        left = argilla.http.get(f"datasets/{aside}/records", params={"limit": 9}).json()["items"]
        assert [record["external_id"] for record in left] == [str(other)]
