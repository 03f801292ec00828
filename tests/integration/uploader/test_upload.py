"""Tests of uploader.push.backlog: what becomes of the rows, whatever Argilla does."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import psycopg
import pytest
from prometheus_client import REGISTRY
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from core.text_identity import text_id
from tests.integration.uploader.conftest import AddTexts, Rows, RunWithEngine
from tests.integration.uploader.fake_argilla import DATASET_ID, QUESTION_ID, FakeArgilla
from tests.integration.uploader.leading import DATASET, leading, upload_pending
from uploader.argilla.errors import ArgillaError, Gone, Stopped, Unreachable
from uploader.argilla.setup import Prepared
from uploader.dataset import DatasetState
from uploader.leadership import NotLeading
from uploader.push.backlog import upload_backlog
from uploader.push.deliver import BROKE_DOWN, UNREADABLE
from uploader.runner import Backoff, JobRunner
from uploader.settings import PushSettings

Upload = Callable[..., Any]

_STATES = "select status, attempts, lease_owner is null, retry_at > now() from texts order by sequence"


async def _upload(state: DatasetState, stopping: asyncio.Event) -> None:
    await upload_pending(state, 2, stopping)


@pytest.fixture
def upload(run: RunWithEngine) -> Upload:
    """Upload the backlog to a fake Argilla; return the state."""

    def upload_(
        fake: FakeArgilla,
        work: Callable[[DatasetState, asyncio.Event], Awaitable[None]] = _upload,
        connections: int = 1,
    ) -> DatasetState:
        async def with_state(engine: AsyncEngine) -> DatasetState:
            async with leading(engine, fake.answer, connections=connections) as state:
                state.prepared = Prepared(DATASET_ID, QUESTION_ID)
                try:
                    await work(state, asyncio.Event())
                except ArgillaError as error:
                    error.add_note(str(state.prepared))
                    raise
                return state

        state: DatasetState = run(with_state)
        return state

    return upload_


def test_a_backlog_goes_batch_by_batch(upload: Upload, add_texts: AddTexts, rows: Rows) -> None:
    ids = add_texts("a", "b", "c", "d", "e")
    fake = FakeArgilla()
    upload(fake)
    assert fake.records == {str(id_) for id_ in ids}
    assert rows(_STATES) == [("uploaded", 1, True, None)] * 5


def test_what_was_held_for_a_twin_goes_too_when_the_setting_is_off(
    upload: Upload, add_texts: AddTexts, rows: Rows
) -> None:
    add_texts("asked")
    add_texts("held", status="near_duplicate", enrichment='{"language": {"code": "en", "confidence": 1}}')
    upload(FakeArgilla())
    assert rows(_STATES) == [("uploaded", 1, True, None)] * 2


def test_a_refused_text_does_not_hold_back_its_batch(upload: Upload, add_texts: AddTexts, rows: Rows) -> None:
    ids = add_texts("a", "b", "c")
    upload(FakeArgilla(refused=frozenset({str(ids[1])})))
    assert rows("select status from texts order by sequence") == [("uploaded",), ("failed",), ("uploaded",)]
    assert rows("select last_error from texts where status = 'failed'") == [("of a reason",)]


@pytest.mark.parametrize(
    ("fake", "error"),
    [
        (FakeArgilla(is_away=True), Unreachable),
        (FakeArgilla(status=503), Unreachable),
        (FakeArgilla(status=500), Unreachable),
        (FakeArgilla(status=401), Stopped),
        (FakeArgilla(status=404), Gone),
    ],
    ids=["away", "503", "500", "401", "404"],
)
def test_an_outage_uses_up_no_attempts(
    fake: FakeArgilla, error: type[ArgillaError], upload: Upload, add_texts: AddTexts, rows: Rows
) -> None:
    add_texts("a", "b", "c")
    with pytest.raises(error):
        upload(fake)
    assert rows("select distinct status, attempts, lease_owner from texts") == [("pending", 0, None)]
    assert rows("select retry_at > now() from texts order by sequence")[0] == (True,)


def test_a_deleted_dataset_is_prepared_again(upload: Upload, add_texts: AddTexts) -> None:
    add_texts("a")
    with pytest.raises(Gone) as caught:
        upload(FakeArgilla(status=404))
    assert caught.value.__notes__ == ["None"]


def test_no_transaction_is_open_while_argilla_is_called(upload: Upload, add_texts: AddTexts, rows: Rows) -> None:
    open_ = (
        "select count(*) from pg_stat_activity where datname = current_database() "
        "and xact_start is not null and pid <> pg_backend_pid()"
    )

    async def look() -> None:
        # Another batch's claim may be open for a moment.
        async with asyncio.timeout(60):
            while rows(open_) != [(0,)]:  # noqa: ASYNC110 - in Postgres
                await asyncio.sleep(0.01)

    add_texts("a")
    upload(FakeArgilla(before_put=look))
    assert rows("select status from texts") == [("uploaded",)]


def test_a_claim_lost_meanwhile_changes_nothing(upload: Upload, add_texts: AddTexts, rows: Rows) -> None:
    async def work(state: DatasetState, stopping: asyncio.Event) -> None:
        async def take_away() -> None:
            stopping.set()
            async with state.engine.begin() as connection:
                await connection.execute(text("update texts set lease_owner = gen_random_uuid()"))

        fake.before_put = take_away
        await _upload(state, stopping)

    fake = FakeArgilla()
    add_texts("a")
    upload(fake, work)
    assert rows(_STATES) == [("uploading", 0, False, None)]


def test_a_cancelled_upload_gives_back_what_it_holds(upload: Upload, add_texts: AddTexts, rows: Rows) -> None:
    async def work(state: DatasetState, stopping: asyncio.Event) -> None:
        reached = asyncio.Event()

        async def hang() -> None:
            reached.set()
            await asyncio.sleep(60)

        fake.before_put = hang
        task = asyncio.create_task(_upload(state, stopping))
        await reached.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    fake = FakeArgilla()
    add_texts("a")
    upload(fake, work)
    assert rows(_STATES) == [("pending", 0, True, None)]


def test_a_new_leader_takes_over_the_claims_of_the_former(upload: Upload, add_texts: AddTexts, rows: Rows) -> None:
    ids = add_texts("a", status="uploading", lease_owner="00000000-0000-0000-0000-000000000001")
    fake = FakeArgilla()
    upload(fake)
    assert fake.records == {str(ids[0])}
    assert rows(_STATES) == [("uploaded", 1, True, None)]


def test_a_stopping_upload_claims_nothing(upload: Upload, add_texts: AddTexts, rows: Rows) -> None:
    async def work(state: DatasetState, stopping: asyncio.Event) -> None:
        stopping.set()
        await _upload(state, stopping)

    add_texts("a")
    upload(FakeArgilla(), work)
    assert rows(_STATES) == [("pending", 0, True, None)]


def _puts_at_once(upload: Upload, connections: int) -> int:
    """Upload with this number of connections; return the maximum number of concurrent PUTs."""
    now = most = 0
    all_here = asyncio.Event()

    async def meet() -> None:
        nonlocal now, most
        now += 1
        most = max(most, now)
        if most == connections:
            all_here.set()
        async with asyncio.timeout(60):
            await all_here.wait()
        await asyncio.sleep(0.02)  # time for one too many to come
        now -= 1

    upload(FakeArgilla(before_put=meet), connections=connections)
    return most


@pytest.mark.parametrize("connections", [1, 3])
def test_as_many_batches_are_put_at_once_as_there_are_connections(
    connections: int, upload: Upload, add_texts: AddTexts, rows: Rows
) -> None:
    add_texts(*(f"t{i}" for i in range(6 * connections)))
    assert _puts_at_once(upload, connections) == connections
    assert rows("select status, attempts, count(*) from texts group by 1, 2") == [("uploaded", 1, 6 * connections)]


def test_a_batch_is_claimed_while_another_is_put(upload: Upload, add_texts: AddTexts, rows: Rows) -> None:
    async def until_two_are_claimed() -> None:
        left = rows("select count(*) from texts where status = 'pending'")[0][0]
        async with asyncio.timeout(60):
            while left and rows("select count(distinct lease_owner) from texts") != [(2,)]:  # noqa: ASYNC110
                await asyncio.sleep(0.01)

    add_texts("a", "b", "c", "d")
    upload(FakeArgilla(before_put=until_two_are_claimed))
    assert rows(_STATES) == [("uploaded", 1, True, None)] * 4


def test_a_leader_that_lost_the_dataset_puts_nothing_more(upload: Upload, add_texts: AddTexts, rows: Rows) -> None:
    async def work(state: DatasetState, stopping: asyncio.Event) -> None:
        async def lose() -> None:
            # As a frozen process that wakes up in the midst of a call: another leads, and has claimed the texts.
            await state.leadership.release()
            async with state.engine.begin() as connection:
                await connection.execute(text("update texts set lease_owner = gen_random_uuid()"))

        fake.before_put = lose
        with pytest.raises(NotLeading):
            await _upload(state, stopping)

    fake = FakeArgilla(refused=frozenset({str(text_id(DATASET, "a"))}))  # so that a second PUT were to come
    add_texts("a", "b")
    upload(fake, work)
    assert fake.records == set()
    assert rows(_STATES) == [("uploading", 0, False, None)] * 2


def test_new_texts_are_confirmed_by_counting_and_others_by_looking(
    upload: Upload, add_texts: AddTexts, rows: Rows
) -> None:
    add_texts("new", "also new")
    fake = FakeArgilla()
    upload(fake)
    assert fake.search_limits == [1]
    add_texts("retried", attempts=1)
    fake = FakeArgilla()
    upload(fake)
    assert fake.search_limits == [250]
    assert rows("select distinct status from texts") == [("uploaded",)]


def test_a_new_text_that_is_not_shown_is_found_by_looking(upload: Upload, add_texts: AddTexts, rows: Rows) -> None:
    [_, hidden] = add_texts("new", "hidden")
    upload(FakeArgilla(hidden=frozenset({str(hidden)})))
    assert rows("select text, status from texts order by sequence") == [("new", "uploaded"), ("hidden", "failed")]


@pytest.mark.parametrize("attempts", [0, 1])
@pytest.mark.parametrize("others", ["abc", ""])
def test_a_record_over_which_the_search_breaks_down_does_not_hold_back_its_batch(
    upload: Upload, add_texts: AddTexts, rows: Rows, attempts: int, others: str
) -> None:
    [stale] = add_texts("stale", attempts=attempts)
    add_texts(*others)
    upload(FakeArgilla(stale=frozenset({str(stale)})))
    assert rows("select text, status from texts order by sequence") == [
        ("stale", "failed"),
        *((text, "uploaded") for text in others),
    ]
    assert rows("select last_error from texts where text = 'stale'") == [(UNREADABLE,)]


def test_a_text_that_breaks_argilla_fails_when_argilla_takes_one_of_those_that_it_has(
    upload: Upload, add_texts: AddTexts, rows: Rows
) -> None:
    first, second = map(str, add_texts("first", "second", status="uploaded"))
    [bad] = map(str, add_texts("bad"))
    # One of the others may have been damaged in Argilla, whichever of them is tried first.
    for broken in (first, second):
        fake = FakeArgilla(broken=frozenset({bad, broken}))
        upload(fake)
        assert rows("select status, last_error from texts where text = 'bad'") == [("failed", BROKE_DOWN)]
        assert fake.records == {first, second} - {broken}
        rows("update texts set status = 'pending', attempts = 0 where text = 'bad' returning 1")


def test_no_text_fails_when_argilla_takes_none_of_three_that_it_has(
    upload: Upload, add_texts: AddTexts, rows: Rows
) -> None:
    stored = {str(id_) for id_ in add_texts(*"abcde", status="uploaded")}
    [pending] = map(str, add_texts("pending"))
    fake = FakeArgilla(broken=frozenset({*stored, pending}))
    with pytest.raises(Unreachable, match="not even those that it has"):
        upload(fake)
    assert rows("select status, attempts from texts where text = 'pending'") == [("pending", 0)]
    assert len({id_ for [id_] in fake.puts if id_ in stored}) == 3


def test_no_text_fails_while_the_dataset_is_not_published(upload: Upload, add_texts: AddTexts, rows: Rows) -> None:
    [pending] = map(str, add_texts("pending"))
    with pytest.raises(Stopped, match="not published"):
        upload(FakeArgilla(broken=frozenset({pending}), is_published=False))
    assert rows("select status, attempts from texts") == [("pending", 0)]


@pytest.mark.parametrize(("refused", "extra"), [("", 0), ("b", 1)])
def test_puts_that_isolate_bad_texts_are_counted(
    upload: Upload, add_texts: AddTexts, refused: str, extra: int
) -> None:
    def count() -> float:
        return REGISTRY.get_sample_value("uploader_batch_extra_puts_total", {"dataset": DATASET}) or 0

    add_texts("a", "b")
    before = count()
    upload(FakeArgilla(refused=frozenset(str(text_id(DATASET, words)) for words in refused)))
    assert count() == before + extra


def test_what_nobody_can_decide_about_waits_longer_than_the_job(
    upload: Upload, add_texts: AddTexts, rows: Rows
) -> None:
    async def work(state: DatasetState, stopping: asyncio.Event) -> None:
        runner = JobRunner(DATASET, "push", Backoff(15))
        await runner.run(lambda: upload_backlog(state, PushSettings(batch_size=2), runner, stopping))
        pauses.append(runner.pause())

    pauses: list[float] = []
    add_texts("a")
    upload(FakeArgilla(is_away=True), work)
    [(wait,)] = rows("select extract(epoch from retry_at - now())::float from texts")
    assert pauses[0] < wait <= 2 * pauses[0]


def test_a_batch_for_a_dataset_that_was_replaced_meanwhile_counts_for_nothing(
    upload: Upload, add_texts: AddTexts, rows: Rows, database_url: str
) -> None:
    add_texts("a")

    def replace() -> None:
        with psycopg.connect(database_url) as connection:
            connection.execute("update datasets set argilla_dataset_id = gen_random_uuid()")

    with pytest.raises(Gone):
        # In a thread: it may have to wait for a transaction that the event loop has to end.
        upload(FakeArgilla(before_put=lambda: asyncio.to_thread(replace)))
    assert rows("select status, attempts, uploaded_at from texts") == [("pending", 0, None)]
