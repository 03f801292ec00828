"""Tests of uploader.pull.repair: what Argilla lost goes back into the queue, and nothing else does."""

import asyncio
import re
from uuid import uuid4

import psycopg
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from tests.integration.uploader.conftest import ANN, AddTexts, Pulling, Rows, RunWithEngine
from tests.integration.uploader.model_argilla import DATASET_ID, ModelArgilla, Record
from tests.integration.uploader.pulling import Side, pulling
from tests.waiting import until_blocked
from uploader.argilla.errors import Gone, Unreachable
from uploader.leadership import NotLeading
from uploader.pull.collector import show_again
from uploader.pull.repair import repair_losses

_STATUSES = "select text, status from texts order by sequence"


async def _nothing(_side: Side) -> None:
    return


async def _lose(side: Side) -> None:
    """Have another dataset remembered, so that the next uploader finds a new one."""
    async with side.state.engine.begin() as connection:
        await connection.exec_driver_sql("update datasets set argilla_dataset_id = gen_random_uuid()")


async def _heal(side: Side, stop_after_a_step: bool = False) -> None:
    stopping = asyncio.Event()
    on_step = stopping.set if stop_after_a_step else lambda: None
    await repair_losses(side.collector, stopping, on_step)


def test_what_was_in_the_lost_dataset_is_pending_again_and_nothing_else(
    pull: Pulling, add_texts: AddTexts, rows: Rows
) -> None:
    pull(_lose)
    add_texts("lost", status="uploaded", uploaded_at="now", attempts=3)
    add_texts("failed", status="failed", uploaded_at="now")
    pull(_nothing)  # finds the new one
    add_texts("in the new one", status="uploaded", uploaded_at="now")
    pull(_heal)
    assert rows(_STATUSES) == [("lost", "pending"), ("failed", "failed"), ("in the new one", "uploaded")]
    assert rows("select attempts from texts where text = 'lost'") == [(3,)]
    assert rows("select refill_position from datasets") == [(None,)]


def test_a_refill_is_of_one_dataset_and_sends_its_texts_at_once_and_in_their_places(
    pull: Pulling, add_texts: AddTexts, rows: Rows, database_url: str
) -> None:
    with psycopg.connect(database_url) as connection:  # stored first, so that a look at any row finds it
        connection.execute("insert into datasets (name, argilla_dataset_at) values ('spam', 'infinity')")
    pull(_lose)
    add_texts("never confirmed", status="uploaded")
    add_texts("in its place", status="uploaded", uploaded_at="now", page_position=7, retry_at="now")
    add_texts("in the new one", status="uploaded", uploaded_at="tomorrow")
    add_texts("elsewhere", dataset="spam", status="uploaded", uploaded_at="now")
    pull(_heal)
    assert rows("select status, page_position, retry_at from texts order by sequence") == [
        ("pending", 1, None),
        ("pending", 7, None),
        ("uploaded", None, None),
        ("uploaded", None, None),
    ]
    assert rows("select refill_position from datasets") == [(None,), (None,)]


def test_a_text_that_is_forgotten_during_a_refill_stays_forgotten(
    pull: Pulling, add_texts: AddTexts, rows: Rows, database_url: str
) -> None:
    pull(_lose)
    add_texts("a", status="uploaded", uploaded_at="now")

    async def forget_meanwhile(side: Side) -> None:
        with psycopg.connect(database_url) as forgetting:
            forgetting.execute("update texts set status = 'forgotten'")
            healing = asyncio.create_task(_heal(side))
            await until_blocked(database_url)
        await healing

    pull(forget_meanwhile)
    assert rows(_STATUSES) == [("a", "forgotten")]


def test_a_refill_takes_turns_with_others_that_confirm_the_leader_and_change_the_dataset(
    pull: Pulling, add_texts: AddTexts, rows: Rows, database_url: str
) -> None:
    """Two that hold the row for share, and then change it, would wait for each other."""
    pull(_lose)
    add_texts("a", status="uploaded", uploaded_at="now")

    async def heal_meanwhile(side: Side) -> None:
        with psycopg.connect(database_url) as other:
            other.execute("select from datasets for share")
            healing = asyncio.create_task(_heal(side))
            await until_blocked(database_url)
            other.execute("update datasets set sweep_position = sweep_position")
        await healing

    pull(heal_meanwhile)
    assert rows(_STATUSES) == [("a", "pending")]


def test_a_dataset_that_is_gone_is_prepared_anew(pull: Pulling, model: ModelArgilla) -> None:
    model.statuses["GET dataset/progress"] = 404

    async def heal_nothing(side: Side) -> None:
        with pytest.raises(Gone):
            await _heal(side)
        assert side.state.prepared is None

    pull(heal_nothing)


def test_a_refill_goes_on_where_it_was_when_its_process_ended(
    pull: Pulling, rows: Rows, database_url: str
) -> None:
    """A thousand texts are a step."""
    pull(_lose)
    with psycopg.connect(database_url) as connection:
        connection.execute(
            "insert into texts (id, dataset, text, status, uploaded_at) select gen_random_uuid(), 'toxicity',"
            " n::text, 'uploaded', now() from generate_series(1, 1200) as n"
        )
    pull(lambda side: _heal(side, stop_after_a_step=True))
    assert rows("select status, count(*) from texts group by 1 order by 1") == [
        ("pending", 1000),
        ("uploaded", 200),
    ]
    pull(_heal)
    assert rows("select status, count(*) from texts group by 1") == [("pending", 1200)]


def test_the_first_dataset_replaces_none(pull: Pulling, add_texts: AddTexts, rows: Rows) -> None:
    add_texts("demo", status="uploaded", uploaded_at="2026-01-01")
    pull(_heal)
    assert rows(_STATUSES) == [("demo", "uploaded")]


def test_nothing_is_swept_before_the_lost_texts_are_pending(
    pull: Pulling, add_texts: AddTexts, model: ModelArgilla
) -> None:
    pull(_lose)
    add_texts("a", status="uploaded", uploaded_at="now")
    pull(lambda side: side.look())
    assert model.calls["POST dataset/records/search"] == 0


def test_answers_given_while_a_lost_index_is_replaced_are_taken_over(
    pull: Pulling, add_texts: AddTexts, model: ModelArgilla, rows: Rows
) -> None:
    """Some were there before; another one came after they were read, and before annotators lost the dataset."""
    model.has_index = False

    async def lose_the_index(side: Side) -> None:
        ids = add_texts(*(f"t{n}" for n in range(260)), status="uploaded", uploaded_at="now")
        model.add_records(*ids)
        model.records["not one of ours"] = Record(uuid4())
        [elsewhere] = add_texts("of another dataset", dataset="spam", status="uploaded")
        model.add_records(elsewhere)
        for id_ in (ids[0], ids[-1], elsewhere):
            model.respond(id_, ANN, "submitted", "toxic")

        async def answer_another_one() -> None:
            model.respond(ids[1], ANN, "submitted", "non_toxic")

        model.before["PATCH dataset"] = answer_another_one
        with pytest.raises(Unreachable):  # the model makes no new dataset
            await _heal(side)
        assert side.state.prepared is None

    pull(lose_the_index)
    assert re.fullmatch(r"toxicity_lost_\d{14}", model.name)
    labelled = "select text, label from labels join texts on id = text_id order by sequence"
    assert rows(labelled) == [("t0", "toxic"), ("t1", "non_toxic"), ("t259", "toxic")]


@pytest.mark.parametrize("page", [1, 2], ids=["amid the records", "at their end"])
def test_one_that_leads_no_more_sets_no_dataset_aside(
    run: RunWithEngine, add_texts: AddTexts, model: ModelArgilla, page: int
) -> None:
    model.has_index = False
    now = [1000.0]

    async def lease_runs_out() -> None:
        if model.calls["GET dataset/records"] == page:
            now[0] += 60

    async def heal_slowly(engine: AsyncEngine) -> None:
        model.add_records(*add_texts("a", status="uploaded", uploaded_at="now"))
        model.before["GET dataset/records"] = lease_runs_out
        async with pulling(engine, model, clock=lambda: now[0]) as side:
            with pytest.raises(NotLeading):
                await _heal(side)

    run(heal_slowly)
    assert model.name == "toxicity"
    assert model.calls["GET dataset/records"] == page


def test_entries_that_the_index_lost_are_shown_again_if_they_are_of_the_present_dataset(
    pull: Pulling, add_texts: AddTexts, rows: Rows
) -> None:
    unseen, _ = add_texts("unseen", "seen", status="uploaded", uploaded_at="now", retry_at="now")
    [waiting] = add_texts("failed", status="failed")

    async def show(side: Side) -> None:
        await show_again(side.state, uuid4(), [unseen])
        assert rows("select status from texts where text = 'unseen'") == [("uploaded",)]
        await show_again(side.state, DATASET_ID, [unseen, waiting])

    pull(show)
    assert rows(_STATUSES) == [("unseen", "pending"), ("seen", "uploaded"), ("failed", "failed")]
    # They count as shown to annotators, and are sent immediately.
    assert rows("select page_position = sequence, retry_at from texts where text = 'unseen'") == [(True, None)]


def test_only_the_leader_heals(pull: Pulling, add_texts: AddTexts, rows: Rows) -> None:
    pull(_lose)
    [id_] = add_texts("a", status="uploaded", uploaded_at="now")

    async def heal_without_leading(side: Side) -> None:
        async with side.state.engine.begin() as connection:
            await connection.exec_driver_sql("update datasets set leader_id = gen_random_uuid()")
        with pytest.raises(NotLeading):
            await _heal(side)
        with pytest.raises(NotLeading):
            await show_again(side.state, DATASET_ID, [id_])

    pull(heal_without_leading)
    assert rows(_STATUSES) == [("a", "uploaded")]
