"""What Argilla holds replaces what we hold, and the labels follow."""

import uuid
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import psycopg
import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from core.datasets import LabelRule
from core.labels.annotations import replace_annotations, rewrite_labels, withdraw_annotations
from core.labels.rules import Confusions
from core.models import AnnotationStatus, DatasetRow, Label, LabelStatus, Text
from core.models.labels import LABELS_CHANNEL
from tests.integration.core.answering import ANSWERS, DATASETS, START, TEXTS, answer, label_of, sweep
from tests.waiting import wait_for_blocked


def test_a_majority_is_a_label_and_a_tie_is_disputed(engine: sa.Engine) -> None:
    one, two, three = TEXTS
    sweep(
        engine,
        1,
        answer(one, 0, "toxic"),
        answer(one, 1, "toxic"),
        answer(one, 2, "non_toxic"),
        answer(two, 0, "toxic"),
        answer(two, 1, "non_toxic"),
    )
    first, second = label_of(engine, one), label_of(engine, two)
    assert first is not None
    assert second is not None
    assert (first["label"], first["status"], first["votes"]) == ("toxic", "labelled", {"toxic": 2, "non_toxic": 1})
    assert first["agreement"] == pytest.approx(2 / 3)
    assert (second["label"], second["status"], second["annotations"]) == (None, "disputed", 2)
    assert label_of(engine, three) is None


def test_drafts_and_discards_do_not_count(engine: sa.Engine) -> None:
    sweep(engine, 1, answer(TEXTS[0], 0, "toxic", "draft"), answer(TEXTS[0], 1, None, "discarded"))
    assert label_of(engine, TEXTS[0]) is None


def test_nothing_new_changes_nothing(engine: sa.Engine) -> None:
    responses = [answer(TEXTS[0], 0, "toxic"), answer(TEXTS[1], 0, None, "discarded")]
    assert sweep(engine, 1, *responses) == 2
    before = label_of(engine, TEXTS[0])
    assert sweep(engine, 2, *responses) == 0
    assert label_of(engine, TEXTS[0]) == before


def test_an_edit_keeps_the_time_of_the_label_and_moves_it_in_the_feed(engine: sa.Engine) -> None:
    sweep(engine, 1, answer(TEXTS[0], 0, "toxic"))
    before = label_of(engine, TEXTS[0])
    sweep(engine, 2, answer(TEXTS[0], 0, "non_toxic", updated=5))
    after = label_of(engine, TEXTS[0])
    assert before is not None
    assert after is not None
    assert after["label"] == "non_toxic"
    assert after["labelled_at"] == before["labelled_at"]
    assert int(after["changed_xid"]) > int(before["changed_xid"])


def test_the_last_deleted_answer_leaves_a_tombstone(engine: sa.Engine) -> None:
    sweep(engine, 1, answer(TEXTS[0], 0, "toxic"))
    before = label_of(engine, TEXTS[0])
    sweep(engine, 2)
    withdrawn = label_of(engine, TEXTS[0])
    assert withdrawn is not None
    assert (withdrawn["status"], withdrawn["label"], withdrawn["annotations"]) == (LabelStatus.WITHDRAWN, None, 0)
    sweep(engine, 3, answer(TEXTS[0], 0, "toxic", number=1))
    again = label_of(engine, TEXTS[0])
    assert before is not None
    assert again is not None
    assert again["label"] == "toxic"
    assert again["labelled_at"] > before["labelled_at"]


def test_a_slow_read_does_not_undo_a_newer_one(engine: sa.Engine) -> None:
    sweep(engine, 5, answer(TEXTS[0], 0, "non_toxic", updated=9))
    sweep(engine, 4, answer(TEXTS[0], 0, "toxic", updated=1))
    before = label_of(engine, TEXTS[0])
    assert sweep(engine, 4) == 0
    assert label_of(engine, TEXTS[0]) == before
    assert votes_of(engine, TEXTS[0]) == {"non_toxic": 1}


def test_an_older_read_adds_what_it_saw_and_withdraws_nothing_that_a_newer_one_saw(engine: sa.Engine) -> None:
    sweep(engine, 5, answer(TEXTS[0], 0, "non_toxic"))
    assert sweep(engine, 4, answer(TEXTS[0], 1, "toxic")) == 1
    assert votes_of(engine, TEXTS[0]) == {"non_toxic": 1, "toxic": 1}


def test_an_older_read_brings_nothing_back_that_a_newer_one_withdrew(engine: sa.Engine) -> None:
    sweep(engine, 1, answer(TEXTS[0], 0, "toxic"))
    sweep(engine, 5)
    sweep(engine, 4, answer(TEXTS[0], 0, "toxic"))
    assert votes_of(engine, TEXTS[0]) == {}


def test_two_reads_of_a_text_take_turns(engine: sa.Engine, database_url: str) -> None:
    """The newer read must see what the older one stored, to withdraw it; and the label must follow from both."""
    older, newer = (START + timedelta(minutes=minute) for minute in (1, 2))
    with engine.begin() as first, ThreadPoolExecutor(1) as thread:
        replace_annotations(first, DATASETS, "toxicity", older, {TEXTS[0]: [answer(TEXTS[0], 0, "toxic")]})

        def read_again() -> list[UUID]:
            with engine.begin() as second:
                read = {TEXTS[0]: [answer(TEXTS[0], 1, "non_toxic")]}
                return replace_annotations(second, DATASETS, "toxicity", newer, read)

        reading = thread.submit(read_again)
        wait_for_blocked(database_url)
        first.commit()
        assert reading.result() == [TEXTS[0]]
    assert votes_of(engine, TEXTS[0]) == {"non_toxic": 1}
    with engine.connect() as connection:
        alive = sa.text("select annotator from annotations where withdrawn_at is null")
        assert connection.execute(alive).all() == [("annotator 1",)]


def test_texts_are_locked_in_one_order_whatever_order_they_are_read_in(
    engine: sa.Engine, database_url: str
) -> None:
    """Else two reads could each hold what the other one waits for."""
    # Stored first, locked last; and without an index, which would impose another order.
    low, high = sorted(TEXTS[:2], key=lambda id_: (id_, TEXTS.index(id_)))
    with engine.begin() as connection:
        connection.execute(sa.text("delete from texts"))
        for id_ in (high, low):
            connection.execute(sa.insert(Text).values(id=id_, dataset="toxicity", text=str(id_)))
    with engine.begin() as first, psycopg.connect(database_url) as looking, ThreadPoolExecutor(1) as thread:
        first.execute(sa.select(Text.id).where(Text.id == low).with_for_update())

        def read() -> None:
            with engine.begin() as second:
                second.execute(sa.text("set local enable_indexscan = off"))
                second.execute(sa.text("set local enable_bitmapscan = off"))
                held = {id_: [answer(id_, 0, "toxic")] for id_ in (high, low)}
                replace_annotations(second, DATASETS, "toxicity", START, held)

        reading = thread.submit(read)
        wait_for_blocked(database_url)
        looking.execute("select from texts where id = %s for update nowait", [high])  # is free
        looking.rollback()
        first.commit()
        reading.result()


def test_reading_a_text_does_not_hold_back_who_stores_its_near_duplicates(
    engine: sa.Engine, database_url: str
) -> None:
    with engine.begin() as reading, psycopg.connect(database_url) as storing:
        replace_annotations(reading, DATASETS, "toxicity", START, {TEXTS[0]: [answer(TEXTS[0], 0, "toxic")]})
        storing.execute("set lock_timeout = '10s'")
        storing.execute("insert into near_duplicates values (%s, %s, 1)", [TEXTS[1], TEXTS[0]])


def test_readers_are_woken_when_a_label_changed_and_only_then(engine: sa.Engine, database_url: str) -> None:
    with psycopg.connect(database_url, autocommit=True) as listening:
        listening.execute(f"listen {LABELS_CHANNEL}")
        for _ in range(2):
            sweep(engine, 1, answer(TEXTS[0], 0, "toxic"), answer(TEXTS[1], 0, "toxic"))
        sweep(
            engine,
            2,
            answer(TEXTS[0], 0, "toxic"),
            answer(TEXTS[1], 0, "toxic"),
            answer(TEXTS[2], 1, "toxic", "draft"),
        )
        woken = list(listening.notifies(timeout=0))
    assert [(one.channel, one.payload) for one in woken] == [("label_changes", "")]


@pytest.mark.parametrize("status", ["failed", "forgotten"])
def test_a_text_that_has_no_record_any_more_takes_no_annotations(engine: sa.Engine, status: str) -> None:
    with engine.begin() as connection:
        connection.execute(sa.update(Text).where(Text.id == TEXTS[0]).values(status=status))
    assert sweep(engine, 1, answer(TEXTS[0], 0, "toxic"), answer(TEXTS[1], 0, "toxic")) == 1
    assert label_of(engine, TEXTS[0]) is None
    assert votes_of(engine, TEXTS[1]) == {"toxic": 1}


@pytest.mark.parametrize("changed", ["status", "value", "annotator", "argilla_dataset_id"])
def test_each_change_to_an_answer_is_taken_over(engine: sa.Engine, changed: str) -> None:
    given = answer(TEXTS[0], 0, "toxic")
    first, second = uuid.uuid4(), uuid.uuid4()
    sweep(engine, 1, given, argilla_dataset_id=first)
    news: dict[str, Any] = {"status": AnnotationStatus.DISCARDED, "value": "non_toxic", "annotator": "renamed"}
    there = second if changed == "argilla_dataset_id" else first
    edited = replace(given, **{changed: news[changed]}) if changed in news else given
    assert sweep(engine, 2, edited, argilla_dataset_id=there) == 1
    assert sweep(engine, 3, edited, argilla_dataset_id=there) == 0
    with engine.connect() as connection:
        query = sa.text("select status, value, annotator, argilla_dataset_id from annotations")
        assert connection.execute(query).one() == (edited.status, edited.value, edited.annotator, there)


def votes_of(engine: sa.Engine, text: UUID) -> object:
    label = label_of(engine, text)
    return label and label["votes"]


def test_answers_of_a_lost_dataset_count_until_the_annotator_answers_in_the_new_one(engine: sa.Engine) -> None:
    first, second = uuid.uuid4(), uuid.uuid4()
    given = [answer(TEXTS[0], 0, "toxic"), answer(TEXTS[0], 1, "toxic")]
    sweep(engine, 1, *given, argilla_dataset_id=first)
    before = label_of(engine, TEXTS[0])
    # Neither is there yet; then one comes back, with a new id; then it is edited; then it is deleted.
    assert sweep(engine, 2, argilla_dataset_id=second) == 0
    sweep(engine, 3, answer(TEXTS[0], 0, "toxic", updated=9, number=1), argilla_dataset_id=second)
    after = label_of(engine, TEXTS[0])
    assert before is not None
    assert after is not None
    assert (after["votes"], after["labelled_at"]) == ({"toxic": 2}, before["labelled_at"])
    sweep(engine, 4, answer(TEXTS[0], 0, "non_toxic", updated=10, number=1), argilla_dataset_id=second)
    assert votes_of(engine, TEXTS[0]) == {"toxic": 1, "non_toxic": 1}
    sweep(engine, 5, argilla_dataset_id=second)
    assert votes_of(engine, TEXTS[0]) == {"toxic": 1}


def test_the_same_person_with_another_id_in_the_new_dataset_counts_once(engine: sa.Engine) -> None:
    sweep(engine, 1, answer(TEXTS[0], 0, "toxic"), argilla_dataset_id=uuid.uuid4())
    again = replace(answer(TEXTS[0], 0, "non_toxic", updated=9, number=1), annotator_id=uuid.uuid4())
    sweep(engine, 2, again, argilla_dataset_id=uuid.uuid4())
    assert votes_of(engine, TEXTS[0]) == {"non_toxic": 1}


def test_an_answer_that_was_given_back_keeps_the_time_of_its_creation(engine: sa.Engine) -> None:
    sweep(engine, 1, answer(TEXTS[0], 0, "toxic"), argilla_dataset_id=uuid.uuid4())
    later = START + timedelta(days=1)
    again = replace(answer(TEXTS[0], 0, "toxic", number=1), created_at=later, updated_at=later)
    second = uuid.uuid4()
    sweep(engine, 2, again, argilla_dataset_id=second)
    assert sweep(engine, 3, again, argilla_dataset_id=second) == 0
    with engine.connect() as connection:
        query = "select created_at from annotations where withdrawn_at is null"
        assert connection.execute(sa.text(query)).all() == [(START,)]


_LATER = START + timedelta(days=1)


@pytest.mark.parametrize(
    ("changes", "created_at"),
    [
        ({"annotator": "renamed"}, START),
        ({"annotator_id": uuid.uuid4()}, START),
        ({"annotator": "another one", "annotator_id": uuid.uuid4()}, _LATER),
        ({"value": "non_toxic", "answers": {"label": {"value": "non_toxic"}}}, _LATER),
    ],
    ids=["the same id", "the same name", "another person", "another answer"],
)
def test_only_an_annotators_own_answer_that_came_back_as_it_was_keeps_its_time(
    engine: sa.Engine, changes: dict[str, Any], created_at: datetime
) -> None:
    first, second = uuid.uuid4(), uuid.uuid4()
    sweep(engine, 1, answer(TEXTS[0], 0, "toxic"), argilla_dataset_id=first)
    again = replace(answer(TEXTS[0], 0, "toxic", number=1), created_at=_LATER, updated_at=_LATER, **changes)
    sweep(engine, 2, again, argilla_dataset_id=second)
    with engine.connect() as connection:
        query = sa.text("select created_at from annotations where argilla_dataset_id = :there")
        assert connection.scalar(query, {"there": second}) == created_at


def test_the_time_of_an_answer_is_the_one_that_was_stored_first(engine: sa.Engine) -> None:
    sweep(engine, 1, answer(TEXTS[0], 0, "toxic"))
    sweep(engine, 2, replace(answer(TEXTS[0], 0, "toxic", updated=5), created_at=_LATER))
    with engine.connect() as connection:
        assert connection.scalar(sa.text("select created_at from annotations")) == START


def test_when_a_record_is_deleted_carried_answers_go_as_well_and_no_others(engine: sa.Engine) -> None:
    sweep(engine, 1, answer(TEXTS[0], 0, "toxic"), argilla_dataset_id=uuid.uuid4())
    sweep(engine, 1, answer(TEXTS[1], 0, "toxic"), texts=[TEXTS[1]])
    for minute in (2, 3):  # the second time there is nothing left to withdraw
        with engine.begin() as connection:
            moment = START + timedelta(minutes=minute)
            withdraw_annotations(connection, DATASETS, "toxicity", moment, [TEXTS[0]])
    assert votes_of(engine, TEXTS[0]) == {}
    assert votes_of(engine, TEXTS[1]) == {"toxic": 1}
    with engine.connect() as connection:
        withdrawn = connection.scalars(sa.text("select withdrawn_at from annotations order by 1")).all()
    assert withdrawn == [START + timedelta(minutes=2), None]


def _estimate(engine: sa.Engine, dataset: str, rule: LabelRule, label: str, version: int) -> None:
    """Store an estimate by which any answer means this label."""
    sure = (0.999, 0.001) if label == "toxic" else (0.001, 0.999)
    parameters = Confusions(labels=("toxic", "non_toxic"), priors=sure, matrices={}, average=((0.5, 0.5),) * 2)
    row = {"rule": rule, "rule_version": version, "rule_parameters": parameters.model_dump(mode="json")}
    with engine.begin() as connection:
        connection.execute(sa.insert(DatasetRow).values(name=dataset, **row))


def test_labels_follow_from_the_estimate_of_the_datasets_own_rule(engine: sa.Engine) -> None:
    datasets = {"toxicity": DATASETS["toxicity"].model_copy(update={"label_rule": LabelRule.DAWID_SKENE})}

    def read(minute: int, updated: int) -> object:
        held = {TEXTS[0]: [answer(TEXTS[0], 0, "toxic", updated=updated)]}
        with engine.begin() as connection:
            replace_annotations(connection, datasets, "toxicity", START + timedelta(minutes=minute), held)
        label = label_of(engine, TEXTS[0])
        return label and (label["label"], label["rule"], label["rule_version"])

    _estimate(engine, "another", LabelRule.DAWID_SKENE, "non_toxic", 3)
    _estimate(engine, "toxicity", LabelRule.MACE, "non_toxic", 4)
    assert read(1, 1) == ("toxic", "majority", 1)  # as long as there is no estimate of its own
    with engine.begin() as connection:
        connection.execute(sa.delete(DatasetRow).where(DatasetRow.name == "toxicity"))
    _estimate(engine, "toxicity", LabelRule.DAWID_SKENE, "non_toxic", 5)
    assert read(2, 2) == ("non_toxic", "dawid_skene", 5)


def test_a_new_estimate_rewrites_labels_of_failed_texts_too_and_of_forgotten_ones_not(engine: sa.Engine) -> None:
    sweep(engine, 1, *(answer(text, 0, "toxic") for text in TEXTS))
    datasets = {"toxicity": DATASETS["toxicity"].model_copy(update={"label_rule": LabelRule.DAWID_SKENE})}
    _estimate(engine, "toxicity", LabelRule.DAWID_SKENE, "non_toxic", 2)
    with engine.begin() as connection:
        connection.execute(sa.update(Text).where(Text.id == TEXTS[1]).values(status="failed"))
        connection.execute(sa.update(Text).where(Text.id == TEXTS[2]).values(status="forgotten"))
        rewrite_labels(connection, datasets, "toxicity", TEXTS)
    with engine.connect() as connection:
        labels = dict(connection.execute(sa.select(Label.text_id, Label.label)).all())
    assert labels == {TEXTS[0]: "non_toxic", TEXTS[1]: "non_toxic", TEXTS[2]: "toxic"}


def test_texts_that_were_not_read_are_left_alone(engine: sa.Engine) -> None:
    sweep(engine, 1, answer(TEXTS[0], 0, "toxic"), answer(TEXTS[1], 0, "toxic"))
    sweep(engine, 2, texts=[TEXTS[1]])
    label = label_of(engine, TEXTS[0])
    assert label is not None
    assert label["status"] == "labelled"


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(states=st.lists(ANSWERS, min_size=1, max_size=4))
def test_after_any_history_labels_say_what_argilla_holds(
    engine: sa.Engine, states: list[dict[tuple[int, int], tuple[str, str]]]
) -> None:
    with engine.begin() as connection:
        connection.execute(sa.text("truncate labels, annotations"))
    for minute, state in enumerate(states, 1):
        responses = [
            replace(answer(TEXTS[text], annotator, value, status), updated_at=START + timedelta(minutes=minute))
            for (text, annotator), (value, status) in state.items()
        ]
        sweep(engine, minute, *responses)
    for number, text in enumerate(TEXTS):
        submitted = [v for (t, _), (v, status) in states[-1].items() if t == number and status == "submitted"]
        label = label_of(engine, text)
        if submitted:
            assert label is not None
            assert label["votes"] == Counter(submitted)
        else:
            assert label is None or label["status"] == "withdrawn"
