"""Tests of uploader.pull.sweep with a model of Argilla: reasons for sweeps, and their results."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from uuid import UUID, uuid4

import psycopg
import pytest
from prometheus_client import REGISTRY
from sqlalchemy.ext.asyncio import AsyncEngine

from tests.integration.uploader.conftest import ANN, AddTexts, Pulling, Rows, RunWithEngine
from tests.integration.uploader.leading import DATASET
from tests.integration.uploader.model_argilla import ModelArgilla
from tests.integration.uploader.pulling import Side, pulling
from tests.waiting import until_blocked
from uploader.argilla.errors import Gone, Unreachable
from uploader.leadership import NotLeading
from uploader.pull.collector import DELETED

_BOB = UUID(int=22)
_SEARCH = "POST dataset/records/search"


@pytest.fixture
def uploaded(add_texts: AddTexts, model: ModelArgilla, run: RunWithEngine, database_url: str) -> AddTexts:
    """Add texts with their records, as if they had been uploaded; swept once when Argilla has seen no answers."""

    def add(*texts: str) -> list[UUID]:
        async def prepare(engine: AsyncEngine) -> None:
            async with pulling(engine, model):
                pass  # so that the dataset is older than its texts

        run(prepare)
        ids = add_texts(*texts, status="uploaded", uploaded_at="now")
        model.add_records(*ids)
        return ids

    return add


async def _look(side: Side) -> None:
    await side.look()


async def _look_until_quiet(side: Side) -> None:
    for _ in range(3):
        await side.look()


def _answer(model: ModelArgilla, ids: list[UUID], user: UUID = ANN) -> None:
    for id_ in ids:
        model.respond(id_, user, "submitted", "toxic")


def test_every_page_is_taken_over(pull: Pulling, uploaded: AddTexts, model: ModelArgilla, rows: Rows) -> None:
    _answer(model, uploaded(*(f"t{i}" for i in range(600))))
    pull(_look)
    assert rows("select label, annotations, count(*) from labels group by 1, 2") == [("toxic", 1, 600)]
    assert model.calls[_SEARCH] == 3


def test_a_second_sweep_changes_nothing(
    pull: Pulling, uploaded: AddTexts, model: ModelArgilla, rows: Rows
) -> None:
    _answer(model, uploaded("a"))
    pull(_look)
    before = rows("select changed_xid::text from labels")
    pull(_look, full_sweep_seconds=1e-9)
    assert model.calls[_SEARCH] == 2
    assert rows("select changed_xid::text from labels") == before


@pytest.mark.parametrize("webhooks", [True, False])
def test_while_nothing_changes_a_look_costs_a_call_and_counting_four_more(
    pull: Pulling, uploaded: AddTexts, model: ModelArgilla, webhooks: bool
) -> None:
    _answer(model, uploaded(*(f"t{i}" for i in range(300))))

    async def work(side: Side) -> None:
        await side.look()
        model.calls.clear()
        for _ in range(10):
            await side.look()

    pull(work, webhooks=webhooks, count_interval_seconds=3600)
    # One of the ten counted: the users' names, and three counts.
    assert model.calls == {
        "GET dataset": 10,
        "GET users": 1,
        "GET dataset/users/progress": 1,
        "GET dataset/records": 1,
        "GET dataset/progress": 1,
    }


def test_a_restart_is_no_reason_to_sweep(pull: Pulling, uploaded: AddTexts, model: ModelArgilla) -> None:
    _answer(model, uploaded("a"))
    pull(_look)
    pull(_look)
    assert model.calls[_SEARCH] == 1


def test_without_webhooks_activity_makes_for_a_sweep(
    pull: Pulling, uploaded: AddTexts, model: ModelArgilla, rows: Rows
) -> None:
    [id_] = uploaded("a")

    async def work(side: Side) -> None:
        await side.look()
        model.respond(id_, ANN, "submitted", "toxic")
        await side.look()

    pull(work, webhooks=False)
    assert rows("select label from labels") == [("toxic",)]


def test_activity_that_events_explain_makes_for_none(
    pull: Pulling, uploaded: AddTexts, model: ModelArgilla, rows: Rows
) -> None:
    ids = uploaded("a", "b")

    async def work(side: Side) -> None:
        await side.look()
        model.calls.clear()
        for id_ in ids:
            await side.deliver(model.respond(id_, ANN, "submitted", "toxic"))
            await side.pull()
            await side.look()

    pull(work)
    assert model.calls[_SEARCH] == 2  # the pulls
    assert rows("select label from labels") == [("toxic",), ("toxic",)]


def test_activity_whose_event_does_not_come_makes_for_a_sweep(
    pull: Pulling, uploaded: AddTexts, model: ModelArgilla, rows: Rows
) -> None:
    [id_] = uploaded("a")

    async def work(side: Side) -> None:
        await side.look()
        model.respond(id_, ANN, "submitted", "toxic")
        await side.look()

    pull(work, grace_seconds=3600)
    assert rows("select label from labels") == []
    pull(work, grace_seconds=-1)
    assert rows("select label from labels") == [("toxic",)]


def test_what_a_lost_event_added_or_took_is_found_by_counting(
    pull: Pulling, uploaded: AddTexts, model: ModelArgilla, rows: Rows
) -> None:
    lost, told = uploaded("a", "b")

    async def work(side: Side) -> None:
        await side.look()
        model.respond(lost, ANN, "submitted", "toxic")
        await side.deliver(model.respond(told, ANN, "submitted", "toxic"))  # explains the activity
        await side.pull()
        await _look_until_quiet(side)

    pull(work, grace_seconds=3600)
    assert rows("select count(*) from labels where label = 'toxic'") == [(2,)]


def test_a_deleted_user_is_found_by_counting(
    pull: Pulling, uploaded: AddTexts, model: ModelArgilla, rows: Rows
) -> None:
    _answer(model, uploaded("a"))

    async def work(side: Side) -> None:
        await side.look()
        model.delete_user(ANN)
        await _look_until_quiet(side)

    pull(work)
    assert rows("select status from labels") == [("withdrawn",)]
    assert rows("select annotator from annotations") == [("ann",)]


def test_a_difference_that_a_sweep_leaves_is_no_reason_for_another_one(
    pull: Pulling, uploaded: AddTexts, model: ModelArgilla
) -> None:
    uploaded("a")
    somebody_elses = uuid4()
    model.add_records(somebody_elses)

    async def work(side: Side) -> None:
        for _ in range(10):
            await side.look()

    pull(work)
    _answer(model, [somebody_elses])
    pull(work)
    assert model.calls[_SEARCH] <= 5


def test_nothing_is_concluded_from_counts_while_texts_are_on_their_way(
    pull: Pulling, uploaded: AddTexts, model: ModelArgilla, add_texts: AddTexts
) -> None:
    uploaded("a")

    async def work(side: Side) -> None:
        await side.look()
        add_texts("b", status="uploading")
        model.add_records(uuid4())
        await _look_until_quiet(side)

    pull(work)
    assert model.calls[_SEARCH] == 1
    pull(_look)  # whose uploader makes the claimed text pending again
    assert model.calls[_SEARCH] == 2


def test_a_sweep_goes_on_where_it_was_when_its_process_ended(
    pull: Pulling, uploaded: AddTexts, model: ModelArgilla, rows: Rows
) -> None:
    _answer(model, uploaded(*(f"t{i}" for i in range(600))))

    async def work(side: Side) -> None:
        stopping = asyncio.Event()
        await side.sweeper.run(stopping, stopping.set)

    pull(work)
    assert rows("select count(*), (select swept_at is null from datasets) from labels") == [(250, True)]
    assert rows("select sweep_position from datasets") == rows(
        "select id from texts order by id limit 1 offset 249"
    )
    pull(_look)
    assert rows("select count(*), (select swept_at is null from datasets) from labels") == [(600, False)]
    assert model.calls[_SEARCH] == 3


def test_a_sweep_ends_with_the_lead(pull: Pulling, uploaded: AddTexts, model: ModelArgilla, rows: Rows) -> None:
    _answer(model, uploaded(*(f"t{i}" for i in range(600))))
    now = [1000.0]

    async def work(side: Side) -> None:
        def lease_runs_out() -> None:
            now[0] += 60

        with pytest.raises(NotLeading):
            await side.sweeper.run(asyncio.Event(), lease_runs_out)

    pull(work, clock=lambda: now[0])
    assert model.calls[_SEARCH] == 1
    assert rows("select count(*) from labels") == [(250,)]


@pytest.mark.parametrize("call", ["GET users", _SEARCH], ids=["begins", "goes on"])
def test_one_that_was_frozen_moves_nothing_of_its_followers_sweep(
    pull: Pulling, uploaded: AddTexts, model: ModelArgilla, rows: Rows, call: str
) -> None:
    """Else the follower would skip the texts between its own position and the one that was set."""
    uploaded("a")

    async def work(side: Side) -> None:
        async def another_leads() -> None:
            async with side.state.engine.begin() as connection:
                await connection.exec_driver_sql(
                    "update datasets set leader_id = gen_random_uuid(), sweep_position = cast(%s as uuid)",
                    (UUID(int=0),),
                )

        model.before[call] = another_leads
        with pytest.raises(NotLeading):
            await side.look()

    pull(work)
    assert rows("select sweep_position, sweep_activity_at is null, swept_at from datasets") == [
        (UUID(int=0), call == "GET users", None)
    ]


def test_one_that_was_frozen_ends_no_sweep_of_its_follower(
    pull: Pulling, uploaded: AddTexts, rows: Rows, database_url: str
) -> None:
    uploaded("a")

    async def work(side: Side) -> None:
        def another_leads() -> None:
            with psycopg.connect(database_url) as connection:
                connection.execute("update datasets set leader_id = gen_random_uuid()")

        with pytest.raises(NotLeading):
            await side.sweeper.run(asyncio.Event(), another_leads)

    pull(work)
    assert rows("select swept_at, sweep_position is null from datasets") == [(None, False)]


@pytest.mark.parametrize("during", ["begin", "advance", "end"])
def test_a_sweep_takes_turns_with_others_that_confirm_the_leader_and_change_the_dataset(
    pull: Pulling, uploaded: AddTexts, model: ModelArgilla, rows: Rows, database_url: str, during: str
) -> None:
    """Two that hold the row for share, and then change it, would wait for each other."""
    uploaded("a")

    async def work(side: Side) -> None:
        with psycopg.connect(database_url) as other:
            at = asyncio.Event()

            def confirm() -> None:
                if not at.is_set():
                    other.execute("select from datasets for share")
                    at.set()

            async def confirm_before() -> None:
                confirm()

            if during != "end":
                model.before["GET users" if during == "begin" else _SEARCH] = confirm_before
            sweeping = asyncio.create_task(side.sweeper.run(asyncio.Event(), confirm))
            await at.wait()
            await until_blocked(database_url)
            other.execute("update datasets set refill_position = null")
        await sweeping

    pull(work)
    assert rows("select swept_at is not null from datasets") == [(True,)]


@dataclass
class _Clock:
    """The sweep's clock, and how long it has paused by it."""

    now: float = 0.0
    pauses: list[float] = field(default_factory=list)

    async def pause(self, _stopping: asyncio.Event, *, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds

    def takes(self, seconds: float) -> Callable[[], Awaitable[None]]:
        """Return what a call does that takes so long."""

        async def take() -> None:
            self.now += seconds

        return take


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> _Clock:
    """A clock that the test and pauses advance."""
    clock = _Clock()
    monkeypatch.setattr("uploader.pull.sweep.time", SimpleNamespace(monotonic=lambda: clock.now))
    monkeypatch.setattr("uploader.pull.sweep.wait_for_any", clock.pause)
    return clock


@pytest.mark.parametrize(
    ("shares", "full_sweep_seconds", "pause"),
    [((0.1, 1), 1e-9, 4.5), ((1, 0.1), 1e9, 4.5), ((1, 0.1), 1e-9, 0), ((0.01, 1), 1e-9, 30)],
    ids=["at leisure", "urgent", "all the time", "longest"],
)
def test_a_sweep_leaves_argilla_the_rest_of_the_time(
    pull: Pulling,
    uploaded: AddTexts,
    model: ModelArgilla,
    clock: _Clock,
    shares: tuple[float, float],
    full_sweep_seconds: float,
    pause: float,
) -> None:
    """Nine times as long as a page took, when a tenth is the share; never longer than half a minute."""
    ids = uploaded("a", "b")
    pull(_look)  # the first sweep; the next one is due by time, or for its activity
    if full_sweep_seconds > 1:
        _answer(model, ids)
    clock.now, clock.pauses = 1000.0, []
    model.before[_SEARCH] = clock.takes(0.5)
    settings = dict(zip(("sweep_share", "sweep_busy_share"), shares, strict=True))
    pull(_look, webhooks=False, full_sweep_seconds=full_sweep_seconds, **settings)
    assert clock.pauses == [pause]


@pytest.mark.parametrize(("page_seconds", "texts"), [(10, 250), (9.5, 300)])
def test_after_ten_seconds_a_sweep_looks_whether_to_go_faster(
    pull: Pulling,
    uploaded: AddTexts,
    model: ModelArgilla,
    rows: Rows,
    clock: _Clock,
    page_seconds: float,
    texts: int,
) -> None:
    _answer(model, uploaded(*(f"t{i}" for i in range(300))))
    model.before[_SEARCH] = clock.takes(page_seconds)
    pull(_look)
    assert rows("select count(*) from labels") == [(texts,)]


@pytest.mark.parametrize(("interval", "rest"), [(5, 10), (20, 20)], ids=["by its share", "by the interval"])
def test_counting_waits_for_its_interval_and_its_share_of_the_time(
    pull: Pulling, uploaded: AddTexts, model: ModelArgilla, clock: _Clock, interval: float, rest: float
) -> None:
    uploaded("a")
    pull(_look)

    async def work(side: Side) -> None:
        model.before["GET users"] = clock.takes(1)
        for count in (1, 2, 3):
            await side.look()
            assert model.calls["GET dataset/users/progress"] == count
            clock.now += rest - 0.25
            await side.look()
            assert model.calls["GET dataset/users/progress"] == count
            clock.now += 0.25

    clock.now = 0.0
    pull(work, count_interval_seconds=interval, sweep_share=0.1)


def test_a_missing_event_is_waited_for_as_long_as_a_sweep_takes(
    pull: Pulling, uploaded: AddTexts, model: ModelArgilla, rows: Rows, clock: _Clock
) -> None:
    [id_] = uploaded("a")
    clock.now = 1000.0

    async def work(side: Side) -> None:
        model.before[_SEARCH] = clock.takes(5)
        await side.look()
        _answer(model, [id_])
        await side.look()
        clock.now += 5
        await side.look()
        assert rows("select label from labels") == []
        clock.now += 1
        await side.look()

    pull(work, grace_seconds=3600)
    assert rows("select label from labels") == [("toxic",)]


@pytest.mark.parametrize(
    ("webhooks", "seconds_ago", "lost"),
    [(True, 11.5, 1), (True, 0, 0), (False, 60, 0)],
    ids=["lost", "fresh", "off"],
)
def test_an_answer_that_no_event_told_for_ten_seconds_counts_as_a_lost_event(
    pull: Pulling, uploaded: AddTexts, model: ModelArgilla, webhooks: bool, seconds_ago: float, lost: int
) -> None:
    [id_] = uploaded("a")
    model.now = datetime.now(UTC) - timedelta(seconds=seconds_ago)
    _answer(model, [id_])
    before = _lost_events()
    pull(_look, webhooks=webhooks)
    assert _lost_events() - before == lost


def _lost_events() -> float:
    return REGISTRY.get_sample_value("uploader_lost_events_total", {"dataset": DATASET}) or 0


def test_a_dataset_that_is_gone_is_prepared_anew(pull: Pulling, uploaded: AddTexts, model: ModelArgilla) -> None:
    uploaded("a")
    model.statuses["GET dataset"] = 404

    async def work(side: Side) -> None:
        with pytest.raises(Gone):
            await side.look()
        assert side.state.prepared is None

    pull(work)


def test_what_happens_during_a_sweep_makes_for_another_one(
    pull: Pulling, uploaded: AddTexts, model: ModelArgilla, rows: Rows
) -> None:
    ids = sorted(uploaded(*(f"t{i}" for i in range(300))))

    async def work(side: Side) -> None:
        # Behind the page that was just read.
        await side.sweeper.run(asyncio.Event(), lambda: _answer(model, ids[:1]))
        await side.look()

    pull(work, webhooks=False)
    assert rows("select label from labels") == [("toxic",)]


def test_a_response_that_is_gone_is_withdrawn(
    pull: Pulling, uploaded: AddTexts, model: ModelArgilla, rows: Rows
) -> None:
    [id_] = uploaded("a")
    _answer(model, [id_])
    pull(_look)
    model.delete_response(id_, ANN)
    pull(_look)
    assert rows("select status from labels") == [("withdrawn",)]


def test_a_record_that_only_the_index_lost_keeps_its_annotations_and_is_sent_again(
    pull: Pulling, uploaded: AddTexts, model: ModelArgilla, rows: Rows
) -> None:
    [id_] = uploaded("a")
    _answer(model, [id_])
    pull(_look)
    model.records[str(id_)].is_visible = False
    pull(_look_until_quiet)
    assert rows("select label from labels") == [("toxic",)]
    assert rows("select status, attempts from texts") == [("pending", 0)]


def test_a_deleted_record_fails_its_text_and_withdraws_its_annotations(
    pull: Pulling, uploaded: AddTexts, model: ModelArgilla, rows: Rows
) -> None:
    id_, _ = uploaded("a", "b")
    _answer(model, [id_])
    pull(_look)
    model.delete_record(id_)
    pull(_look_until_quiet)
    assert rows("select status from labels") == [("withdrawn",)]
    assert rows("select status, last_error from texts order by sequence") == [
        ("failed", DELETED),
        ("uploaded", None),
    ]


def test_a_deleted_record_that_the_index_kept_fails_its_text_alone(
    pull: Pulling, uploaded: AddTexts, model: ModelArgilla, rows: Rows
) -> None:
    ids = uploaded("a", "b", "c")
    _answer(model, ids)
    pull(_look)
    model.stale.add(str(ids[1]))  # over which every search breaks down
    model.delete_record(ids[1])
    pull(_look_until_quiet)
    assert rows("select status from labels order by status") == [("labelled",), ("labelled",), ("withdrawn",)]
    assert rows("select id, last_error from texts where status = 'failed'") == [(ids[1], DELETED)]


def test_texts_that_were_uploaded_into_another_dataset_are_left_alone(
    pull: Pulling, uploaded: AddTexts, model: ModelArgilla, rows: Rows, run: RunWithEngine, database_url: str
) -> None:
    _answer(model, uploaded("a"))
    pull(_look)

    async def lose_everything(engine: AsyncEngine) -> None:
        async with engine.begin() as connection:
            await connection.exec_driver_sql("update datasets set argilla_dataset_id = gen_random_uuid()")

    run(lose_everything)
    model.records.clear()
    pull(_look_until_quiet)
    assert rows("select label from labels") == [("toxic",)]
    assert rows("select status from texts") == [("uploaded",)]


def test_a_renamed_annotator_gets_the_new_name(
    pull: Pulling, uploaded: AddTexts, model: ModelArgilla, rows: Rows
) -> None:
    _answer(model, uploaded("a"))
    pull(_look)
    model.users[ANN] = "anna"
    pull(_look_until_quiet)
    assert rows("select annotator from annotations") == [("anna",)]


def test_an_annotator_that_argilla_forgot_keeps_the_name(
    pull: Pulling, uploaded: AddTexts, model: ModelArgilla, rows: Rows
) -> None:
    _answer(model, uploaded("a"))
    pull(_look)
    model.users.clear()
    pull(_look, full_sweep_seconds=1e-9)
    assert rows("select annotator from annotations") == [("ann",)]


def test_an_annotator_that_nobody_knows_is_named_by_the_id(
    pull: Pulling, uploaded: AddTexts, model: ModelArgilla, rows: Rows
) -> None:
    _answer(model, uploaded("a"), _BOB)
    pull(_look)
    assert rows("select annotator from annotations") == [(str(_BOB),)]


def test_an_outage_withdraws_nothing(pull: Pulling, uploaded: AddTexts, model: ModelArgilla, rows: Rows) -> None:
    _answer(model, uploaded("a"))
    pull(_look)
    model.is_away = True
    with pytest.raises(Unreachable):
        pull(_look)
    assert rows("select label from labels") == [("toxic",)]
