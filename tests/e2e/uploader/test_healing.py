"""What a real Argilla lost comes back from Postgres: records, answers, index. Labels stay as they are."""

import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID

import httpx
import pytest

from local_stack.testing import RunningStack
from tests.e2e.uploader.conftest import AddTexts, Annotator, ArgillaSpace, StartUploader
from tests.e2e.uploader.stored import fetch, statuses
from tests.programs import run
from tests.waiting import wait_for

pytestmark = pytest.mark.soak

_LABEL = "select label, annotations from labels where text_id = %s"
_LABELS = "select text_id, label, status, annotations, labelled_at from labels order by text_id"
_COUNTED = """
select text_id, annotator, status, value from annotations where withdrawn_at is null order by text_id, annotator
"""

# Those that a sweep of the new dataset saw.
_SEEN_AGAIN = """
select count(*) from annotations join datasets using (argilla_dataset_id)
where withdrawn_at is null and seen_at > argilla_dataset_at
"""


@contextmanager
def _unchanging(database_url: str) -> Iterator[None]:
    """Look at labels and answers again and again until the block ends: they must stay as they are."""
    before = fetch(database_url, _LABELS), fetch(database_url, _COUNTED)
    changes: list[Any] = []
    stopping = threading.Event()

    def watch() -> None:
        while not stopping.is_set():
            now = fetch(database_url, _LABELS), fetch(database_url, _COUNTED)
            if now != before:
                changes.append(now)
            stopping.wait(0.02)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield
    finally:
        stopping.set()
        watcher.join()
    assert changes == []
    assert before[0], "there was nothing to watch"


def _answers(argilla: ArgillaSpace, id_: UUID) -> dict[str, tuple[str, str | None]]:
    """Return what a record's annotators answered, by user."""
    responses = argilla.record(id_)["responses"] or []
    return {r["user_id"]: (r["status"], (r["values"] or {}).get("label", {}).get("value")) for r in responses}


def _give_answers(argilla: ArgillaSpace, ids: list[UUID], ann: Annotator, bob: Annotator) -> None:
    """Submit, edit, discard and save: on the first five texts."""
    agreed, disputed, edited, discarded, draft = (argilla.record(id_)["id"] for id_ in ids[:5])
    for record in (agreed, disputed):
        ann.answer(record, "toxic")
    bob.answer(agreed, "toxic")
    bob.answer(disputed, "non_toxic")
    ann.edit(ann.answer(edited, "toxic"), "non_toxic")
    ann.answer(discarded, "toxic")
    bob.discard(discarded)
    ann.answer(draft, "toxic")
    bob.save_draft(draft, "non_toxic")


def _upload_and_answer(database_url: str, argilla: ArgillaSpace, ids: list[UUID]) -> Annotator:
    """Wait for the uploads, answer some texts, and wait for their labels; return the first annotator."""
    wait_for(lambda: statuses(database_url) == {"uploaded": len(ids)})
    ann, bob = argilla.add_annotator("ann"), argilla.add_annotator("bob")
    _give_answers(argilla, ids, ann, bob)
    wait_for(lambda: len(fetch(database_url, _COUNTED)) == 9)
    wait_for(lambda: fetch(database_url, _LABEL, ids[2])[0][0] == "non_toxic")
    return ann


def _is_full_again(database_url: str, argilla: ArgillaSpace, lost: str, count: int) -> bool:
    held = fetch(database_url, "select argilla_dataset_id::text, refill_position from datasets")
    return held[0][0] != lost and held[0][1] is None and statuses(database_url) == {"uploaded": count}


def _verify(stack: RunningStack, database_url: str) -> subprocess.CompletedProcess[str]:
    env = {
        "DATABASE_URL": database_url,
        "ARGILLA_URL": stack.argilla_url,
        "ARGILLA_API_KEY": stack.argilla_api_key,
    }
    return run("cli", "uploads", "verify", env=env)


def _delete_dataset(argilla: ArgillaSpace) -> str:
    lost = str(argilla.dataset()["id"])
    argilla.http.delete(f"datasets/{lost}").raise_for_status()
    return lost


def test_a_deleted_dataset_comes_back_with_its_answers_twice(
    stack: RunningStack,
    start_uploader: StartUploader,
    add_texts: AddTexts,
    argilla: ArgillaSpace,
    database_url: str,
) -> None:
    ids = add_texts(*(f"text {i}" for i in range(300)))
    with start_uploader(FULL_SWEEP_SECONDS="1"):
        ann = _upload_and_answer(database_url, argilla, ids)
        given = [_answers(argilla, id_) for id_ in ids[:6]]
        for _ in range(2):
            with _unchanging(database_url):
                lost = _delete_dataset(argilla)
                wait_for(lambda lost=lost: _is_full_again(database_url, argilla, lost, 300))  # type: ignore[misc]
                wait_for(lambda: fetch(database_url, _SEEN_AGAIN) == [(9,)])
            assert argilla.visible_count() == argilla.stored_count() == 300
            assert [_answers(argilla, id_) for id_ in ids[:6]] == given

        # Annotators go on, and what they take back stays away.
        [response] = argilla.record(ids[2])["responses"]
        ann.edit(response["id"], "toxic")
        ann.delete(next(r["id"] for r in argilla.record(ids[0])["responses"] if r["user_id"] == str(ann.id)))
        wait_for(lambda: fetch(database_url, _LABEL, ids[2]) == [("toxic", 1)])
        wait_for(lambda: fetch(database_url, _LABEL, ids[0]) == [("toxic", 1)])
        verified = _verify(stack, database_url)
        assert verified.returncode == 0, verified.stdout + verified.stderr


def test_a_refill_that_is_killed_goes_on_and_keeps_what_was_edited_meanwhile(
    stack: RunningStack,
    start_uploader: StartUploader,
    add_texts: AddTexts,
    argilla: ArgillaSpace,
    database_url: str,
) -> None:
    ids = add_texts(*(f"text {i}" for i in range(600)))
    env = {"UPLOAD_BATCH_SIZE": "50", "UPLOADER_LEADER_LEASE_SECONDS": "2"}
    with start_uploader(**env):
        ann = _upload_and_answer(database_url, argilla, ids)
    lost = _delete_dataset(argilla)
    assert _verify(stack, database_url).returncode == 1
    with _unchanging(database_url):
        with start_uploader(**env) as first:
            wait_for(lambda: statuses(database_url).get("pending", 0) > 0)
            wait_for(lambda: statuses(database_url).get("uploaded", 0) >= 50)
            first.kill()
        assert statuses(database_url) != {"uploaded": 600}
    # As if it had been killed between its PUT and the end of the batch: the record is there, and edited since.
    fetch_one = "update texts set status = 'pending' where id = %s returning 1"
    assert fetch(database_url, fetch_one, ids[2]) == [(1,)]
    [response] = argilla.record(ids[2])["responses"]
    ann.edit(response["id"], "toxic")
    with start_uploader(**env):
        wait_for(lambda: _is_full_again(database_url, argilla, lost, 600))
        wait_for(lambda: fetch(database_url, _LABEL, ids[2]) == [("toxic", 1)])
        assert _answers(argilla, ids[2]) == {str(ann.id): ("submitted", "toxic")}
        assert argilla.visible_count() == argilla.stored_count() == 600
        assert _verify(stack, database_url).returncode == 0


def _index(stack: RunningStack, argilla: ArgillaSpace) -> str:
    return f"{stack.opensearch_url}/rg.{argilla.dataset()['id']}"


def test_documents_that_the_index_lost_are_shown_again(
    stack: RunningStack,
    start_uploader: StartUploader,
    add_texts: AddTexts,
    argilla: ArgillaSpace,
    database_url: str,
) -> None:
    ids = add_texts(*(f"text {i}" for i in range(30)))
    with start_uploader():
        _upload_and_answer(database_url, argilla, ids)
    given = _answers(argilla, ids[0])
    body: dict[str, Any] = {"query": {"match_all": {}}}
    httpx.post(f"{_index(stack, argilla)}/_delete_by_query?refresh=true", json=body).raise_for_status()
    verified = _verify(stack, database_url)
    assert verified.returncode == 1
    assert "30 in Argilla's database, but its search does not show them" in verified.stdout
    with _unchanging(database_url), start_uploader(COUNT_INTERVAL_SECONDS="1"):
        wait_for(lambda: argilla.visible_count() == 30 and statuses(database_url) == {"uploaded": 30})
    assert argilla.stored_count() == 30
    assert _answers(argilla, ids[0]) == given
    assert _verify(stack, database_url).returncode == 0


def test_a_lost_index_makes_for_a_new_dataset_and_loses_no_answer(
    stack: RunningStack,
    start_uploader: StartUploader,
    add_texts: AddTexts,
    argilla: ArgillaSpace,
    database_url: str,
) -> None:
    ids = add_texts(*(f"text {i}" for i in range(30)))
    with start_uploader():
        ann = _upload_and_answer(database_url, argilla, ids)
    # Only Argilla's database knows this one.
    ann.answer(argilla.record(ids[9])["id"], "toxic")
    lost = str(argilla.dataset()["id"])
    httpx.delete(_index(stack, argilla)).raise_for_status()
    with start_uploader(probe="/healthz"):
        wait_for(lambda: _is_full_again(database_url, argilla, lost, 30))
    assert argilla.visible_count() == argilla.stored_count() == 30
    assert _answers(argilla, ids[9]) == {str(ann.id): ("submitted", "toxic")}
    assert len(_answers(argilla, ids[0])) == 2
    assert argilla.http.get(f"datasets/{lost}").json()["name"].startswith("toxicity_lost_")
