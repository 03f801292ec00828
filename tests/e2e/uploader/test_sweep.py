"""Annotations come home from a real Argilla: made, edited, discarded and deleted ones."""

from uuid import UUID

import httpx
import pytest

from tests.e2e.uploader.conftest import AddTexts, ArgillaSpace, StartUploader
from tests.e2e.uploader.stored import fetch, statuses
from tests.waiting import wait_for

_LABELS = "select label, status, agreement, votes, annotations from labels where text_id = %s"


def _label(database_url: str, id_: UUID) -> tuple[object, ...] | None:
    found = fetch(database_url, _LABELS, id_)
    return found[0] if found else None


@pytest.mark.soak
def test_two_annotators_answers_become_labels(
    start_uploader: StartUploader, add_texts: AddTexts, argilla: ArgillaSpace, database_url: str
) -> None:
    ids = add_texts(*(f"text {i}" for i in range(8)))
    agreed, disputed, edited, discarded, deleted, draft, bulk, untouched = ids

    def has(id_: UUID, *expected: object) -> bool:
        return _label(database_url, id_) == expected

    with start_uploader():
        wait_for(lambda: statuses(database_url) == {"uploaded": 8})
        ann, bob = argilla.add_annotator("ann"), argilla.add_annotator("bob")
        record = {id_: argilla.record(id_)["id"] for id_ in ids}
        for annotator in (ann, bob):
            annotator.answer(record[agreed], "toxic")
        ann.answer(record[disputed], "toxic")
        bob.answer(record[disputed], "non_toxic")
        to_edit = ann.answer(record[edited], "toxic")
        ann.discard(record[discarded])
        to_delete = ann.answer(record[deleted], "toxic")
        bob.save_draft(record[draft], "toxic")
        items = [{"record_id": record[bulk], "status": "submitted", "values": {"label": {"value": "toxic"}}}]
        bob.http.post("me/responses/bulk", json={"items": items}).raise_for_status()

        wait_for(lambda: has(agreed, "toxic", "labelled", 1.0, {"toxic": 2}, 2))
        wait_for(lambda: has(disputed, None, "disputed", 0.5, {"non_toxic": 1, "toxic": 1}, 2))
        wait_for(lambda: has(edited, "toxic", "labelled", 1.0, {"toxic": 1}, 1))
        wait_for(lambda: has(deleted, "toxic", "labelled", 1.0, {"toxic": 1}, 1))
        wait_for(lambda: has(bulk, "toxic", "labelled", 1.0, {"toxic": 1}, 1))

        ann.edit(to_edit, "non_toxic")
        ann.delete(to_delete)
        wait_for(lambda: has(edited, "non_toxic", "labelled", 1.0, {"non_toxic": 1}, 1))
        wait_for(lambda: has(deleted, None, "withdrawn", None, {}, 0))

        # A deleted user takes the answers along, and moves no activity: the rolling sweep finds it.
        argilla.http.delete(f"users/{bob.id}").raise_for_status()
        wait_for(lambda: has(agreed, "toxic", "labelled", 1.0, {"toxic": 1}, 1))
        wait_for(lambda: has(disputed, "toxic", "labelled", 1.0, {"toxic": 1}, 1))
        wait_for(lambda: has(bulk, None, "withdrawn", None, {}, 0))

    assert _label(database_url, untouched) is None
    kept = "select annotator, status, value, withdrawn_at is not null from annotations where text_id = %s"
    assert fetch(database_url, kept, discarded) == [(ann.name, "discarded", None, False)]
    assert fetch(database_url, kept, draft) == [(bob.name, "draft", "toxic", True)]
    assert fetch(database_url, kept, deleted) == [(ann.name, "submitted", "toxic", True)]


def test_a_discarded_response_without_values_is_healed(
    start_uploader: StartUploader, add_texts: AddTexts, argilla: ArgillaSpace, database_url: str
) -> None:
    [id_, other] = add_texts("a text", "another")
    with start_uploader():
        wait_for(lambda: statuses(database_url) == {"uploaded": 2})
        ann = argilla.add_annotator("ann")
        record = argilla.record(id_)
        broken = ann.http.post(f"records/{record['id']}/responses", json={"status": "discarded"})
        assert broken.status_code == httpx.codes.INTERNAL_SERVER_ERROR
        ann.answer(argilla.record(other)["id"], "toxic")
        wait_for(lambda: _label(database_url, other) is not None)
        wait_for(lambda: argilla.record(id_)["responses"][0]["values"] == {})
        path = f"datasets/{argilla.dataset()['id']}/records/bulk"
        items = [{"external_id": str(id_), "fields": {"text": "a text"}}]
        argilla.http.put(path, json={"items": items}).raise_for_status()
    annotations = fetch(database_url, "select status, value, answers from annotations where text_id = %s", id_)
    assert annotations == [("discarded", None, {})]


@pytest.mark.soak
def test_an_answer_is_a_label_within_seconds_on_a_thousand_texts(
    start_uploader: StartUploader, add_texts: AddTexts, argilla: ArgillaSpace, database_url: str
) -> None:
    ids = add_texts(*(f"text {i}" for i in range(1000)))
    with start_uploader():
        wait_for(lambda: statuses(database_url) == {"uploaded": 1000})
        ann = argilla.add_annotator("ann")
        seconds = []
        for id_ in sorted(ids)[::100]:
            ann.answer(argilla.record(id_)["id"], "toxic")
            seconds.append(wait_for(lambda id_=id_: _label(database_url, id_) is not None))  # type: ignore[misc]
    print("label latency, seconds:", sorted(round(s, 2) for s in seconds))  # noqa: T201 - a measurement
    assert sorted(seconds)[len(seconds) // 2] < 3
