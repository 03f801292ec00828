"""What a real Argilla was seen to do with answers, and the way back is built for. A failure here means: read
uploader/pull/sweep.py, counts.py, health.py and deletions.py again.
"""

import asyncio
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from core.datasets import Dataset
from local_stack.testing import RunningStack
from tests.e2e.uploader.conftest import Annotator, ArgillaSpace, open_argilla
from uploader.argilla.client import Argilla
from uploader.argilla.setup import prepare

pytestmark = pytest.mark.soak

_DEFINITION = Dataset(labels=("toxic", "non_toxic"), guidelines="x", answers_wanted=2)


@dataclass(frozen=True)
class Answers:
    """A dataset with annotators, as Argilla's owner sees it."""

    argilla: ArgillaSpace
    dataset_id: str

    def add_record(self) -> tuple[str, str]:
        """Return a new record's id, and its external one."""
        external_id = uuid.uuid4().hex
        items = [{"external_id": external_id, "fields": {"text": "a text"}}]
        path = f"datasets/{self.dataset_id}/records/bulk"
        answer = self.argilla.http.put(path, json={"items": items}).raise_for_status()
        return str(answer.json()["items"][0]["id"]), external_id

    def record(self, record_id: str) -> dict[str, Any]:
        record: dict[str, Any] = self.argilla.http.get(f"records/{record_id}").raise_for_status().json()
        return record

    def activity(self) -> str:
        return str(
            self.argilla.http.get(f"datasets/{self.dataset_id}").raise_for_status().json()["last_activity_at"]
        )

    def responses(self, *external_ids: str) -> dict[str, list[dict[str, Any]]]:
        """Return the responses of records that a search finds."""
        scope = {"entity": "record", "property": "external_id"}
        body = {"filters": {"and": [{"type": "terms", "scope": scope, "values": external_ids}]}}
        path = f"datasets/{self.dataset_id}/records/search"
        items = self.argilla.http.post(path, json=body, params={"include": "responses"}).raise_for_status()
        return {item["record"]["external_id"]: item["record"]["responses"] for item in items.json()["items"]}

    def completed_count(self) -> int:
        return int(self.argilla.http.get(f"datasets/{self.dataset_id}/progress").json()["completed"])


@pytest.fixture(scope="module")
def answers(stack: RunningStack) -> Iterator[Answers]:
    workspace = f"answers_{uuid.uuid4().hex[:8]}"
    with open_argilla(stack.argilla_url, stack.argilla_api_key) as http:
        dataset_id = asyncio.run(_prepare(stack, workspace))
        yield Answers(ArgillaSpace(http, workspace, stack.argilla_url, ""), dataset_id)


async def _prepare(stack: RunningStack, workspace: str) -> str:
    headers = {"X-Argilla-Api-Key": stack.argilla_api_key}
    async with httpx.AsyncClient(base_url=f"{stack.argilla_url}/api/v1/", headers=headers, timeout=60) as http:
        return str((await prepare(Argilla(http), workspace, "answers", _DEFINITION)).dataset_id)


@pytest.fixture(scope="module")
def ann(answers: Answers) -> Annotator:
    return answers.argilla.add_annotator("ann")


def test_a_record_bears_no_trace_of_answers_in_its_dates(answers: Answers, ann: Annotator) -> None:
    record_id, external_id = answers.add_record()
    updated_at = answers.record(record_id)["updated_at"]
    response = ann.answer(record_id, "toxic")
    ann.edit(response, "non_toxic")
    assert answers.record(record_id)["updated_at"] == updated_at
    completed = answers.completed_count()
    answers.argilla.add_annotator("second").answer(record_id, "toxic")
    assert answers.completed_count() == completed + 1  # two answers are wanted
    updated_at = answers.record(record_id)["updated_at"]
    answers.argilla.add_annotator("late").answer(record_id, "toxic")
    ann.edit(response, "toxic")
    assert answers.record(record_id)["updated_at"] == updated_at
    assert len(answers.responses(external_id)[external_id]) == 3


def test_changes_of_answers_move_the_activity(answers: Answers, ann: Annotator) -> None:
    record_id, _ = answers.add_record()
    other_id, _ = answers.add_record()
    seen = [answers.activity()]
    response = ann.answer(record_id, "toxic")
    seen.append(answers.activity())
    ann.edit(response, "non_toxic")
    seen.append(answers.activity())
    ann.delete(response)
    seen.append(answers.activity())
    items = [{"record_id": other_id, "status": "submitted", "values": {"label": {"value": "toxic"}}}]
    ann.http.post("me/responses/bulk", json={"items": items}).raise_for_status()
    seen.append(answers.activity())
    assert len(set(seen)) == 5


def test_deletions_of_users_and_records_move_no_activity(answers: Answers, ann: Annotator) -> None:
    record_id, external_id = answers.add_record()
    other_id, _ = answers.add_record()
    leaving = answers.argilla.add_annotator("leaving")
    leaving.answer(record_id, "toxic")
    ann.answer(record_id, "toxic")
    before = answers.activity()
    answers.argilla.http.delete(f"users/{leaving.id}").raise_for_status()
    answers.argilla.http.delete(f"records/{other_id}").raise_for_status()
    # A deleted user takes the answers along.
    assert [r["user_id"] for r in answers.responses(external_id)[external_id]] == [str(ann.id)]
    assert answers.activity() == before


def test_an_answer_given_again_is_another_one(answers: Answers, ann: Annotator) -> None:
    record_id, external_id = answers.add_record()
    first = ann.answer(record_id, "toxic")
    ann.delete(first)
    assert answers.responses(external_id) == {external_id: []}  # no trace
    second = ann.answer(record_id, "toxic")
    assert [r["id"] for r in answers.responses(external_id)[external_id]] == [second] != [first]


def test_deletions_between_two_pages_of_a_listing_skip_records(answers: Answers) -> None:
    ids = [answers.add_record()[0] for _ in range(4)]
    total = answers.argilla.http.get(f"datasets/{answers.dataset_id}/records", params={"limit": 1}).json()["total"]

    def page(offset: int) -> list[str]:
        query = {"limit": 2, "offset": offset}
        listed = answers.argilla.http.get(f"datasets/{answers.dataset_id}/records", params=query)
        return [item["id"] for item in listed.raise_for_status().json()["items"]]

    assert page(total - 4) == ids[:2]
    answers.argilla.http.delete(f"records/{ids[0]}").raise_for_status()
    assert page(total - 2) == ids[3:]  # the third was on neither page


def test_a_discarded_answer_without_values_breaks_upserts_until_it_gets_some(
    answers: Answers, ann: Annotator
) -> None:
    record_id, external_id = answers.add_record()
    body: dict[str, Any] = {"status": "discarded"}
    assert ann.http.post(f"records/{record_id}/responses", json=body).status_code == 500
    [response] = answers.responses(external_id)[external_id]
    assert response["values"] is None  # stored all the same
    path = f"datasets/{answers.dataset_id}/records/bulk"
    items = {"items": [{"external_id": external_id, "fields": {"text": "a text"}}]}
    assert answers.argilla.http.put(path, json=items).status_code == 500
    answers.argilla.http.put(f"responses/{response['id']}", json=body | {"values": {}}).raise_for_status()
    answers.argilla.http.put(path, json=items).raise_for_status()
