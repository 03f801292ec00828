"""Tests of uploader.healing: what Argilla lost goes back into the queue, and nothing else does."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from tests.integration.uploader.conftest import AddTexts, Rows, RunWithEngine
from tests.integration.uploader.model_argilla import DATASET_ID, ModelArgilla
from tests.integration.uploader.pulling import Side, pulling
from uploader import healing
from uploader.healing import heal, show_again
from uploader.leadership import NotLeading

_STATUSES = "select text, status from texts order by sequence"

Work = Callable[[Side], Awaitable[None]]


@pytest.fixture
def model() -> ModelArgilla:
    """An Argilla."""
    return ModelArgilla()


@pytest.fixture
def work(run: RunWithEngine, model: ModelArgilla) -> Callable[[Work], None]:
    """Work as an uploader that begins just now."""

    def work_(what: Work) -> None:
        async def with_side(engine: AsyncEngine) -> None:
            async with pulling(engine, model) as side:
                await what(side)

        run(with_side)

    return work_


async def _nothing(_side: Side) -> None:
    return


async def _lose(side: Side) -> None:
    """Have another dataset remembered, so that the next uploader finds a new one."""
    async with side.lane.engine.begin() as connection:
        await connection.exec_driver_sql("update datasets set argilla_dataset_id = gen_random_uuid()")


async def _heal(side: Side, stop_after_a_step: bool = False) -> None:
    stopping = asyncio.Event()
    on_step = stopping.set if stop_after_a_step else lambda: None
    await heal(side.lane, side.collector, stopping, on_step)


def test_what_was_in_the_lost_dataset_is_pending_again_and_nothing_else(
    work: Callable[[Work], None], add_texts: AddTexts, rows: Rows
) -> None:
    work(_lose)
    add_texts("lost", status="uploaded", uploaded_at="now", attempts=3)
    add_texts("failed", status="failed", uploaded_at="now")
    work(_nothing)  # finds the new one
    add_texts("in the new one", status="uploaded", uploaded_at="now")
    work(_heal)
    assert rows(_STATUSES) == [("lost", "pending"), ("failed", "failed"), ("in the new one", "uploaded")]
    assert rows("select attempts from texts where text = 'lost'") == [(3,)]
    assert rows("select refill_position from datasets") == [(None,)]


def test_a_refill_goes_on_where_it_was_when_its_process_ended(
    work: Callable[[Work], None], add_texts: AddTexts, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(healing, "_STEP_TEXTS", 2)
    work(_lose)
    add_texts("a", "b", "c", status="uploaded", uploaded_at="now")
    work(lambda side: _heal(side, stop_after_a_step=True))
    assert rows("select status, count(*) from texts group by 1 order by 1") == [("pending", 2), ("uploaded", 1)]
    work(_heal)
    assert rows("select status, count(*) from texts group by 1") == [("pending", 3)]


def test_the_first_dataset_replaces_none(work: Callable[[Work], None], add_texts: AddTexts, rows: Rows) -> None:
    add_texts("demo", status="uploaded", uploaded_at="2026-01-01")
    work(_heal)
    assert rows(_STATUSES) == [("demo", "uploaded")]


def test_nothing_is_swept_before_the_lost_texts_are_pending(
    work: Callable[[Work], None], add_texts: AddTexts, model: ModelArgilla
) -> None:
    work(_lose)
    add_texts("a", status="uploaded", uploaded_at="now")
    work(lambda side: side.look())
    assert model.calls["POST dataset/records/search"] == 0


def test_only_the_leader_heals(work: Callable[[Work], None], add_texts: AddTexts, rows: Rows) -> None:
    work(_lose)
    [id_] = add_texts("a", status="uploaded", uploaded_at="now")

    async def heal_without_leading(side: Side) -> None:
        async with side.lane.engine.begin() as connection:
            await connection.exec_driver_sql("update datasets set leader_id = gen_random_uuid()")
        with pytest.raises(NotLeading):
            await _heal(side)
        with pytest.raises(NotLeading):
            await show_again(side.lane, DATASET_ID, [id_])

    work(heal_without_leading)
    assert rows(_STATUSES) == [("a", "uploaded")]
