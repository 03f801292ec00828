"""Completed texts, disputes, and the adjudicators who decide them."""

from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from uuid import UUID

import pytest
import sqlalchemy as sa

from core.datasets import adjudication_of
from core.labels.adjudication import list_decisions, request_missing
from core.labels.annotations import replace_annotations
from core.models import Label, Text
from core.text_identity import BEFORE_ALL, text_id
from tests.integration.core.answering import DATASETS, START, TEXTS, answer, label_of, sweep
from tests.waiting import PATIENCE_SECONDS, wait_for_blocked

ADJUDICATION = adjudication_of("toxicity")


def completed_at(engine: sa.Engine, text: UUID) -> datetime | None:
    with engine.connect() as connection:
        return connection.scalar(sa.select(Text.completed_at).where(Text.id == text))


def completed(engine: sa.Engine, text: UUID) -> bool:
    return completed_at(engine, text) is not None


def copies(engine: sa.Engine) -> list[sa.RowMapping]:
    with engine.connect() as connection:
        rows = connection.execute(sa.select(Text.__table__).where(Text.dataset == ADJUDICATION))
        return list(rows.mappings())


def decide(engine: sa.Engine, minute: int, text: UUID, *values: str) -> None:
    """Adjudicators' answers: all of them, as a read of Argilla shows."""
    with engine.begin() as connection:
        read = {text: [answer(text, n, value) for n, value in enumerate(values)]}
        replace_annotations(connection, DATASETS, ADJUDICATION, START + timedelta(minutes=minute), read)


def test_as_many_answers_as_are_wanted_complete_a_text(engine: sa.Engine) -> None:
    first, second = answer(TEXTS[0], 0, "toxic"), answer(TEXTS[0], 1, "toxic")
    sweep(engine, 1, first)
    assert not completed(engine, TEXTS[0])
    sweep(engine, 2, first, second)
    at = completed_at(engine, TEXTS[0])
    assert at is not None
    assert not completed(engine, TEXTS[1])
    sweep(engine, 3, first, second, answer(TEXTS[0], 2, "toxic"))
    assert completed_at(engine, TEXTS[0]) == at  # one more answer is no news
    sweep(engine, 4, second)
    assert not completed(engine, TEXTS[0])


def test_a_dispute_is_put_before_adjudicators_once_without_the_claim(engine: sa.Engine) -> None:
    with engine.begin() as connection:
        connection.execute(
            sa.update(Text).where(Text.id == TEXTS[0]).values(claimed_label="toxic", score=0.9, metadata_={"a": 1})
        )
    first, second = answer(TEXTS[0], 0, "toxic"), answer(TEXTS[0], 1, "non_toxic")
    sweep(engine, 1, first)
    assert copies(engine) == []
    sweep(engine, 2, first, second)
    sweep(engine, 3, first, second, answer(TEXTS[0], 2, None, "discarded"))
    [copy] = copies(engine)
    assert (copy["adjudicates"], copy["text"], copy["status"]) == (TEXTS[0], "text 0", "pending")
    assert (copy["claimed_label"], copy["score"]) == (None, None)
    assert copy["metadata"] == {"a": 1, "votes": "non_toxic: 1, toxic: 1"}


def test_adjudicators_decide_until_they_take_it_back(engine: sa.Engine) -> None:
    sweep(engine, 1, answer(TEXTS[0], 0, "toxic"), answer(TEXTS[0], 1, "non_toxic"))
    [copy] = copies(engine)
    decide(engine, 2, copy["id"], "non_toxic")
    label = label_of(engine, TEXTS[0])
    assert label is not None
    assert (label["label"], label["status"], label["decided_by"]) == ("non_toxic", "labelled", "adjudicators")
    assert (label["votes"], label["annotations"]) == ({"non_toxic": 1, "toxic": 1}, 2)
    assert label["agreement"] == pytest.approx(0.5)
    assert completed(engine, copy["id"])
    decide(engine, 3, copy["id"])
    label = label_of(engine, TEXTS[0])
    assert label is not None
    assert (label["label"], label["status"], label["decided_by"]) == (None, "disputed", "annotators")


def test_adjudicators_who_are_divided_decide_nothing(engine: sa.Engine) -> None:
    sweep(engine, 1, answer(TEXTS[0], 0, "toxic"), answer(TEXTS[0], 1, "non_toxic"))
    [copy] = copies(engine)
    decide(engine, 2, copy["id"], "toxic", "non_toxic")
    label = label_of(engine, TEXTS[0])
    assert label is not None
    assert (label["label"], label["status"]) == (None, "disputed")


def test_only_submitted_decisions_with_a_label_count(engine: sa.Engine) -> None:
    sweep(engine, 1, answer(TEXTS[0], 0, "toxic"), answer(TEXTS[0], 1, "non_toxic"))
    [copy] = copies(engine)
    open_ones = [answer(copy["id"], 0, "toxic", "draft"), answer(copy["id"], 1, "toxic", "discarded")]
    with engine.begin() as connection:
        read = {copy["id"]: [*open_ones, answer(copy["id"], 2, None)]}
        replace_annotations(connection, DATASETS, ADJUDICATION, START + timedelta(minutes=2), read)
    assert list_decided(engine, copy["id"]) == {}
    label = label_of(engine, TEXTS[0])
    assert label is not None
    assert label["status"] == "disputed"


def list_decided(engine: sa.Engine, copy: UUID) -> dict[UUID, list[str]]:
    with engine.connect() as connection:
        return list_decisions(connection, [*TEXTS, copy])


def test_a_decision_about_one_text_decides_no_other(engine: sa.Engine) -> None:
    both = [answer(text, n, value) for text in TEXTS[:2] for n, value in enumerate(("toxic", "non_toxic"))]
    sweep(engine, 1, *both)
    one, other = sorted(copies(engine), key=lambda copy: TEXTS.index(copy["adjudicates"]))
    decide(engine, 2, one["id"], "toxic")
    before = label_of(engine, TEXTS[0])
    decide(engine, 2, other["id"], "non_toxic")
    assert label_of(engine, TEXTS[0]) == before  # not even stamped anew
    with engine.connect() as connection:
        query = sa.select(Label.text_id, Label.label).where(Label.dataset == "toxicity")
        labels = dict(connection.execute(query).all())
    assert labels == {TEXTS[0]: "toxic", TEXTS[1]: "non_toxic"}


def _dispute_all(engine: sa.Engine) -> None:
    """Dispute all texts as before the settings asked for adjudicators."""
    sweep(engine, 1, *(answer(text, n, v) for text in TEXTS for n, v in enumerate(("toxic", "non_toxic"))))
    with engine.begin() as connection:
        connection.execute(sa.delete(Text).where(Text.dataset == ADJUDICATION))


def _request(engine: sa.Engine, after: UUID = BEFORE_ALL, dataset: str = "toxicity") -> UUID | None:
    with engine.begin() as connection:
        return request_missing(connection, dataset, DATASETS["toxicity"], after)


def test_a_walk_through_disputes_goes_on_behind_its_last_text(engine: sa.Engine) -> None:
    _dispute_all(engine)
    first, *others = sorted(TEXTS)
    assert _request(engine, first) == others[-1]
    assert {copy["adjudicates"] for copy in copies(engine)} == set(others)


def test_disputes_of_another_dataset_and_labelled_texts_are_left_alone(engine: sa.Engine) -> None:
    _dispute_all(engine)
    sweep(engine, 2, *(answer(text, n, "toxic", updated=9) for text in TEXTS[1:] for n in (0, 1)))
    with engine.begin() as connection:
        connection.execute(sa.delete(Text).where(Text.dataset == ADJUDICATION))
    assert _request(engine, dataset="spam") is None
    assert copies(engine) == []
    _request(engine)
    with engine.connect() as connection:
        disputed = set(connection.scalars(sa.select(Label.text_id).where(Label.status == "disputed")))
    assert {copy["adjudicates"] for copy in copies(engine)} == disputed


def test_a_text_that_is_forgotten_meanwhile_leaves_no_copy(engine: sa.Engine, database_url: str) -> None:
    _dispute_all(engine)
    with engine.begin() as forgetting, ThreadPoolExecutor(1) as thread:
        forgetting.execute(sa.update(Text).where(Text.id == TEXTS[0]).values(status="forgotten"))
        requesting = thread.submit(_request, engine)
        wait_for_blocked(database_url)
        forgetting.commit()
        requesting.result()
    assert {copy["adjudicates"] for copy in copies(engine)} == set(TEXTS[1:])


def test_a_request_does_not_wait_for_rows_that_refer_to_its_texts(engine: sa.Engine) -> None:
    _dispute_all(engine)
    with ThreadPoolExecutor(1) as thread, engine.begin() as storing:
        # As a foreign key does.
        storing.execute(sa.select(Text.id).with_for_update(read=True, key_share=True))
        thread.submit(_request, engine).result(PATIENCE_SECONDS)
    assert {copy["adjudicates"] for copy in copies(engine)} == set(TEXTS)


def test_a_dispute_whose_text_adjudicators_have_already_is_no_error(engine: sa.Engine) -> None:
    with engine.begin() as connection:
        id_ = text_id(ADJUDICATION, "text 0")
        connection.execute(sa.insert(Text).values(id=id_, dataset=ADJUDICATION, text="text 0", source="a client"))
    sweep(engine, 1, answer(TEXTS[0], 0, "toxic"), answer(TEXTS[0], 1, "non_toxic"))
    assert [copy["source"] for copy in copies(engine)] == ["a client"]


def test_texts_that_were_disputed_before_are_queued_once(engine: sa.Engine) -> None:
    answers = [answer(text, n, value) for text in TEXTS[:2] for n, value in enumerate(("toxic", "non_toxic"))]
    sweep(engine, 1, *answers)
    with engine.begin() as connection:
        connection.execute(sa.delete(Text).where(Text.dataset == ADJUDICATION))
        asks_for_more = DATASETS["toxicity"].model_copy(update={"answers_wanted": 3})
        assert request_missing(connection, "toxicity", asks_for_more, BEFORE_ALL) is not None
    assert copies(engine) == []
    for expected in (max(TEXTS[:2]), None):
        with engine.begin() as connection:
            assert request_missing(connection, "toxicity", DATASETS["toxicity"], BEFORE_ALL) == expected
        assert {copy["adjudicates"] for copy in copies(engine)} == set(TEXTS[:2])
    assert {copy["metadata"]["votes"] for copy in copies(engine)} == {"non_toxic: 1, toxic: 1"}


def test_a_decision_without_annotations_is_no_label(engine: sa.Engine) -> None:
    sweep(engine, 1, answer(TEXTS[0], 0, "toxic"), answer(TEXTS[0], 1, "non_toxic"))
    [copy] = copies(engine)
    decide(engine, 2, copy["id"], "toxic")
    sweep(engine, 3)
    label = label_of(engine, TEXTS[0])
    assert label is not None
    assert (label["label"], label["status"]) == (None, "withdrawn")
