"""Answers of a lost dataset go back to their annotators with the records, and from then on follow Argilla."""

from collections.abc import Callable
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest

from tests.integration.uploader.conftest import ANN, AddTexts, Pulling, Rows, Work
from tests.integration.uploader.leading import upload_pending
from tests.integration.uploader.model_argilla import DATASET_ID, ModelArgilla
from tests.integration.uploader.pulling import Side

_BOB, _EVE = UUID(int=22), UUID(int=23)
_LOST = UUID(int=9)
_HELD = """
select annotator, value, argilla_dataset_id from annotations where withdrawn_at is null order by annotator, value
"""

Answer = Callable[..., None]
Upload = Callable[..., None]


@pytest.fixture
def model() -> ModelArgilla:
    """An Argilla with two annotators; "eve" was one once."""
    return ModelArgilla(users={ANN: "ann", _BOB: "bob"})


@pytest.fixture
def answer(database_url: str) -> Answer:
    """Hold an answer, as if it had been seen in a dataset of Argilla's."""

    def add(text: UUID, user: UUID, name: str, value: str | None, **columns: Any) -> None:
        values = {
            "text_id": text,
            "response_id": uuid4(),
            "annotator_id": user,
            "annotator": name,
            "status": "submitted",
            "value": value,
            "answers": psycopg.types.json.Jsonb({"label": value}),
            "created_at": "2026-01-01",
            "updated_at": "2026-01-01",
            "seen_at": "2026-01-01",
            "argilla_dataset_id": _LOST,
        } | columns
        statement = f"insert into annotations ({', '.join(values)}) values ({', '.join(['%s'] * len(values))})"  # noqa: S608
        with psycopg.connect(database_url) as connection:
            connection.execute(statement, list(values.values()))

    return add


@pytest.fixture
def upload(pull: Pulling) -> Upload:
    """Upload pending texts as a newly started uploader; then run the given action."""

    def upload_(then: Work | None = None) -> None:
        async def work(side: Side) -> None:
            await upload_pending(side.state)
            if then:
                await then(side)

        pull(work)

    return upload_


def _given(model: ModelArgilla, text: UUID) -> dict[str, tuple[str, Any]]:
    responses = model.records[str(text)].responses.values()
    return {
        model.users[UUID(r["user_id"])]: (r["status"], r["values"].get("label", {}).get("value"))
        for r in responses
    }


def test_answers_go_back_to_annotators_and_those_of_others_are_kept(
    upload: Upload, add_texts: AddTexts, answer: Answer, model: ModelArgilla, rows: Rows
) -> None:
    [id_] = add_texts("a", attempts=1)
    answer(id_, ANN, "ann", "toxic")
    answer(id_, uuid4(), "bob", None, status="draft")  # the same name, by another id now
    answer(id_, _EVE, "eve", "non_toxic")
    answer(id_, ANN, "ann", "non_toxic", withdrawn_at="2026-01-02", updated_at="2026-01-02")
    upload()
    assert _given(model, id_) == {"ann": ("submitted", "toxic"), "bob": ("draft", None)}
    assert rows(_HELD) == [("ann", "toxic", DATASET_ID), ("bob", None, DATASET_ID), ("eve", "non_toxic", _LOST)]


def test_what_was_given_back_is_withdrawn_when_its_annotator_deletes_it(
    upload: Upload, add_texts: AddTexts, answer: Answer, model: ModelArgilla, rows: Rows
) -> None:
    [id_] = add_texts("a", attempts=1)
    answer(id_, ANN, "ann", "toxic")
    answer(id_, _EVE, "eve", "non_toxic")

    async def delete(side: Side) -> None:
        model.delete_response(id_, ANN)
        await side.look()

    upload(delete)
    assert [(name, value) for name, value, _ in rows(_HELD)] == [("eve", "non_toxic")]
    assert rows("select label, annotations from labels") == [("non_toxic", 1)]


def test_a_record_that_argilla_has_keeps_the_answers_there(
    upload: Upload, add_texts: AddTexts, answer: Answer, model: ModelArgilla, rows: Rows
) -> None:
    """It was put and not confirmed; since then the annotator changed the answer."""
    [id_] = add_texts("a", attempts=1)
    model.add_records(id_)
    model.respond(id_, ANN, "submitted", "non_toxic")
    answer(id_, ANN, "ann", "toxic")
    upload()
    assert _given(model, id_) == {"ann": ("submitted", "non_toxic")}
    assert rows(_HELD) == [("ann", "toxic", _LOST)]


def test_answers_that_are_in_the_present_dataset_are_not_given_back(
    upload: Upload, add_texts: AddTexts, answer: Answer, model: ModelArgilla
) -> None:
    [id_] = add_texts("a", attempts=1)
    answer(id_, ANN, "ann", "toxic", argilla_dataset_id=DATASET_ID)
    upload()
    assert _given(model, id_) == {}


def test_of_two_answers_of_one_person_the_later_one_goes_back(
    upload: Upload, add_texts: AddTexts, answer: Answer, model: ModelArgilla
) -> None:
    [id_] = add_texts("a", attempts=1)
    answer(id_, ANN, "ann", "toxic", updated_at="2026-01-03", argilla_dataset_id=None)
    answer(id_, uuid4(), "ann", "non_toxic", updated_at="2026-01-02")
    upload()
    assert _given(model, id_) == {"ann": ("submitted", "toxic")}


def test_only_the_answers_of_the_texts_that_were_sent_are_given_back(
    upload: Upload, add_texts: AddTexts, answer: Answer, model: ModelArgilla, rows: Rows
) -> None:
    [sent] = add_texts("sent", attempts=1)
    [failed] = add_texts("failed", attempts=1, status="failed")
    for id_ in (sent, failed):
        answer(id_, ANN, "ann", "toxic", response_id=UUID(int=5))  # ids are unique within a text
    upload()
    held = rows("select text_id, argilla_dataset_id from annotations order by argilla_dataset_id")
    assert held == [(failed, _LOST), (sent, DATASET_ID)]
