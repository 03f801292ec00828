"""What a real Argilla was seen to do with uploads, and the uploader is built for. A failure here means: read
uploader/push/deliver.py, argilla_client.py and records.py again.
"""

import asyncio
import json
import secrets
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import httpcore
import httpx
import pytest

from core.datasets import Dataset
from local_stack.testing import RunningStack
from tests.e2e.uploader.conftest import ArgillaSpace
from uploader.argilla.client import Argilla
from uploader.argilla.errors import parse_refusal
from uploader.argilla.setup import prepare

pytestmark = pytest.mark.soak

_DEFINITION = Dataset(labels=("toxic", "non_toxic"), guidelines="x", answers_wanted=1)
_HEADERS = "X-Argilla-Api-Key"

Item = dict[str, Any]


@dataclass(frozen=True)
class Records:
    """A dataset's records, as Argilla's owner sees them."""

    http: httpx.Client
    dataset_id: str
    question_id: str

    def put(self, *items: Item) -> httpx.Response:
        return self.http.put(f"datasets/{self.dataset_id}/records/bulk", json={"items": items})

    def post(self, *items: Item) -> httpx.Response:
        return self.http.post(f"datasets/{self.dataset_id}/records/bulk", json={"items": items})

    def search(self, *external_ids: str, **query: Any) -> dict[str, Any]:
        scope = {"entity": "record", "property": "external_id"}
        body = {"filters": {"and": [{"type": "terms", "scope": scope, "values": external_ids}]}}
        query = {"include": "responses,suggestions"} | query
        answer = self.http.post(f"datasets/{self.dataset_id}/records/search", json=body, params=query)
        found: dict[str, Any] = answer.raise_for_status().json()
        return found

    def record(self, external_id: str) -> dict[str, Any]:
        [item] = self.search(external_id)["items"]
        record: dict[str, Any] = item["record"]
        return record

    def is_visible(self, external_id: str) -> bool:
        return int(self.search(external_id)["total"]) == 1

    def stored_count(self) -> int:
        answer = self.http.get(f"datasets/{self.dataset_id}/records", params={"limit": 1})
        return int(answer.raise_for_status().json()["total"])

    def visible_count(self) -> int:
        return int(self.http.get(f"datasets/{self.dataset_id}/progress").raise_for_status().json()["total"])


def _item(external_id: str | None = None, text: str = "a text", **columns: Any) -> Item:
    return {"external_id": external_id or uuid.uuid4().hex, "fields": {"text": text}} | columns


def _open(stack: RunningStack, key: str | None = None) -> httpx.Client:
    # A connection for each call: Argilla drops them after a 500.
    limits = httpx.Limits(max_keepalive_connections=0)
    headers = {_HEADERS: key or stack.argilla_api_key}
    return httpx.Client(base_url=f"{stack.argilla_url}/api/v1/", headers=headers, timeout=60, limits=limits)


async def _prepare(stack: RunningStack) -> tuple[str, str]:
    headers = {_HEADERS: stack.argilla_api_key}
    async with httpx.AsyncClient(base_url=f"{stack.argilla_url}/api/v1/", headers=headers, timeout=60) as http:
        prepared = await prepare(Argilla(http), f"traps_{uuid.uuid4().hex[:8]}", "traps", _DEFINITION)
    return str(prepared.dataset_id), str(prepared.question_id)


@pytest.fixture(scope="module")
def records(stack: RunningStack) -> Iterator[Records]:
    """A published dataset with filters for a term, an integer and a float."""
    dataset_id, question_id = asyncio.run(_prepare(stack))
    with _open(stack) as http:
        for kind in ("terms", "integer", "float"):
            body = {"name": f"a_{kind}", "title": kind, "settings": {"type": kind}, "visible_for_annotators": True}
            http.post(f"datasets/{dataset_id}/metadata-properties", json=body).raise_for_status()
        yield Records(http, dataset_id, question_id)


def test_put_matches_by_external_id(records: Records) -> None:
    item = _item()
    for text in ("first", "second"):
        records.put(item | {"fields": {"text": text}}).raise_for_status()
    assert records.record(item["external_id"])["fields"] == {"text": "second"}
    assert records.search(item["external_id"])["total"] == 1


def test_put_without_external_id_inserts_again(records: Records) -> None:
    before = records.stored_count()
    for _ in range(2):
        records.put({"fields": {"text": "nameless"}}).raise_for_status()
    assert records.stored_count() == before + 2


def test_post_of_a_known_external_id_is_refused(records: Records) -> None:
    item = _item()
    assert records.post(item).is_success
    assert records.post(item).status_code == httpx.codes.UNPROCESSABLE_ENTITY


@pytest.mark.parametrize(("count", "is_taken"), [(0, False), (1, True), (500, True), (501, False)])
def test_a_batch_has_1_to_500_items(records: Records, count: int, is_taken: bool) -> None:
    assert records.put(*(_item() for _ in range(count))).is_success is is_taken


@pytest.mark.parametrize("external_id", ["nul \0", secrets.token_hex(4000)], ids=["NUL", "8000 bytes"])
def test_some_external_ids_break_it_down_each_time(records: Records, external_id: str) -> None:
    for _ in range(2):
        assert records.put(_item(external_id)).status_code == httpx.codes.INTERNAL_SERVER_ERROR


def test_after_a_500_the_connection_is_dropped(records: Records, stack: RunningStack) -> None:
    path = f"datasets/{records.dataset_id}/records/bulk"
    headers = {_HEADERS: stack.argilla_api_key}
    with httpx.Client(base_url=f"{stack.argilla_url}/api/v1/", headers=headers, timeout=60) as kept:
        answer = kept.put(path, json={"items": [_item("nul \0")]})
        assert answer.status_code == httpx.codes.INTERNAL_SERVER_ERROR
        stream = answer.extensions["network_stream"]
        # A call that got in between would be answered by a closed connection.
        with suppress(httpcore.ReadError):  # this end has noticed already
            assert stream.read(1, timeout=10) == b""


@pytest.mark.parametrize(
    "metadata",
    [{"a_terms": "x" * 40_000}, {"a_terms": {"a": "dict"}}, {"a_integer": 2**63}, {"a_integer": True}],
    ids=["40,000 characters", "a dict", "2^63", "true"],
)
def test_200_does_not_mean_that_annotators_see_it(records: Records, metadata: dict[str, Any]) -> None:
    odd, good = _item(metadata=metadata), _item(metadata={"a_terms": "x" * 8000, "a_integer": 2**63 - 1})
    records.put(odd, good).raise_for_status()
    assert records.is_visible(good["external_id"])
    assert not records.is_visible(odd["external_id"])


def test_what_is_not_indexed_shows_in_the_counts(records: Records) -> None:
    gap = records.stored_count() - records.visible_count()
    records.put(_item(), _item(metadata={"a_integer": 2**63})).raise_for_status()
    assert records.stored_count() - records.visible_count() == gap + 1


def test_a_search_for_250_ids_counts_them_also_when_it_returns_one(records: Records) -> None:
    items = [_item() for _ in range(250)]
    records.put(*items).raise_for_status()
    ids = [item["external_id"] for item in items]
    found = records.search(*ids, limit=1)
    assert (found["total"], len(found["items"])) == (250, 1)
    assert records.search(*ids[:-1], "not there", limit=1)["total"] == 249


def test_a_refused_item_is_named_by_its_position_only_the_first(records: Records) -> None:
    bad = {"a_integer": "many"}
    items = [_item(), _item(metadata=bad), _item(), _item(metadata=bad)]
    answer = records.put(*items)
    assert answer.status_code == httpx.codes.UNPROCESSABLE_ENTITY
    assert parse_refusal(answer).by_position.keys() == {1}
    assert not any(records.is_visible(item["external_id"]) for item in items)


def test_refused_items_are_named_by_their_location_all_of_them(records: Records) -> None:
    bad = [{"question_id": records.question_id, "value": "toxic", "agent": "förum"}]
    answer = records.put(_item(), _item(suggestions=bad), _item(), _item(suggestions=bad))
    assert answer.status_code == httpx.codes.UNPROCESSABLE_ENTITY
    assert parse_refusal(answer).by_position.keys() == {1, 3}


def test_an_item_twice_in_a_batch_is_refused_without_saying_which(records: Records) -> None:
    item = _item()
    answer = records.put(_item(), item, item)
    assert answer.status_code == httpx.codes.UNPROCESSABLE_ENTITY
    refusal = parse_refusal(answer)
    assert (refusal.by_position, bool(refusal.words)) == ({}, True)


def test_an_empty_text_is_taken_and_a_lone_surrogate_refused(records: Records) -> None:
    assert records.put(_item(text="")).is_success
    body = json.dumps({"items": [_item(text="\ud800")]}).encode()
    path = f"datasets/{records.dataset_id}/records/bulk"
    answer = records.http.put(path, content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == httpx.codes.UNPROCESSABLE_ENTITY


def test_a_text_of_a_megabyte_is_taken(records: Records) -> None:
    item = _item(text="x" * 1_000_000)
    assert records.put(item).is_success
    assert records.is_visible(item["external_id"])


def test_an_upsert_keeps_answers_and_omitted_metadata(records: Records) -> None:
    item = _item()
    suggestion = {"question_id": records.question_id, "value": "toxic", "agent": "first"}
    records.put(item | {"metadata": {"a_terms": "kept"}, "suggestions": [suggestion]}).raise_for_status()
    record_id = records.record(item["external_id"])["id"]
    answer = {"status": "submitted", "values": {"label": {"value": "non_toxic"}}}
    records.http.post(f"records/{record_id}/responses", json=answer).raise_for_status()

    records.put(
        item | {"suggestions": [suggestion | {"value": "non_toxic", "agent": "second"}]}
    ).raise_for_status()
    record = records.record(item["external_id"])
    assert record["metadata"] == {"a_terms": "kept"}
    assert [r["values"] for r in record["responses"]] == [answer["values"]]
    assert [(s["value"], s["agent"]) for s in record["suggestions"]] == [("non_toxic", "second")]
    records.put(item | {"metadata": None}).raise_for_status()
    assert not records.record(item["external_id"])["metadata"]


def test_an_upsert_with_responses_overwrites_the_annotators_own(records: Records) -> None:
    item = _item()
    records.put(item).raise_for_status()
    record_id = records.record(item["external_id"])["id"]
    answer = {"status": "submitted", "values": {"label": {"value": "non_toxic"}}}
    response = records.http.post(f"records/{record_id}/responses", json=answer).raise_for_status().json()
    overwriting = {"user_id": response["user_id"], "status": "submitted", "values": {"label": {"value": "toxic"}}}
    records.put(item | {"responses": [overwriting]}).raise_for_status()
    [kept] = records.record(item["external_id"])["responses"]
    assert kept["values"] == {"label": {"value": "toxic"}}


def test_the_same_new_ids_at_once_are_stored_once(records: Records) -> None:
    before = records.stored_count()
    items = [_item() for _ in range(50)]
    with ThreadPoolExecutor(4) as pool:
        answers = [future.result() for future in [pool.submit(records.put, *items) for _ in range(4)]]
    assert {answer.status_code for answer in answers} <= {httpx.codes.OK, httpx.codes.INTERNAL_SERVER_ERROR}
    assert any(answer.is_success for answer in answers)
    assert records.put(*items).is_success
    assert records.stored_count() == before + 50
    assert records.search(*(item["external_id"] for item in items), limit=1)["total"] == 50


def test_a_dataset_that_is_not_published_refuses_records(records: Records, stack: RunningStack) -> None:
    with _open(stack) as http:
        workspace = (
            http.post("workspaces", json={"name": f"draft_{uuid.uuid4().hex[:8]}"}).raise_for_status().json()
        )
        dataset = {"name": "draft", "workspace_id": workspace["id"]}
        draft = http.post("datasets", json=dataset).raise_for_status().json()
        answer = Records(http, draft["id"], "").put(_item())
    assert answer.status_code == httpx.codes.UNPROCESSABLE_ENTITY


def test_an_unknown_dataset_is_a_404(records: Records) -> None:
    answer = records.http.put(f"datasets/{uuid.uuid4()}/records/bulk", json={"items": [_item()]})
    assert answer.status_code == httpx.codes.NOT_FOUND


def test_a_wrong_key_is_a_401_and_an_annotators_a_403(
    records: Records, stack: RunningStack, argilla: ArgillaSpace
) -> None:
    argilla.http.post("workspaces", json={"name": argilla.workspace}).raise_for_status()
    annotator = argilla.add_annotator("ann")
    path = f"datasets/{records.dataset_id}/records/bulk"
    with _open(stack, "wrong") as stranger:
        assert stranger.put(path, json={"items": [_item()]}).status_code == httpx.codes.UNAUTHORIZED
    assert annotator.http.put(path, json={"items": [_item()]}).status_code == httpx.codes.FORBIDDEN
