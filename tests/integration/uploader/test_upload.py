"""Tests of uploader.upload: what becomes of the rows, whatever Argilla does."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from core.datasets import Dataset
from tests.integration.uploader.conftest import DATASET, AddTexts, Rows, RunWithEngine
from tests.integration.uploader.fake_argilla import DATASET_ID, QUESTION_ID, FakeArgilla
from uploader.argilla_client import Argilla
from uploader.argilla_errors import ArgillaError, Gone, Stopped, Unreachable
from uploader.argilla_setup import Prepared
from uploader.backoff import Backoff
from uploader.guard import Guard
from uploader.lane import Lane
from uploader.settings import PushSettings
from uploader.upload import upload_backlog

Upload = Callable[..., Any]

_DEFINITION = Dataset(labels=("toxic", "non_toxic"), guidelines="x")
_STATES = "select status, attempts, lease_owner is null, retry_at > now() from texts order by sequence"


async def _upload(lane: Lane, stopping: asyncio.Event) -> None:
    await upload_backlog(lane, PushSettings(batch_size=2), Guard(DATASET, "push", Backoff(15)), stopping)


@pytest.fixture
def upload(run: RunWithEngine, database_url: str) -> Upload:
    """Upload the backlog to a fake Argilla; return the lane."""

    def upload_(fake: FakeArgilla, work: Callable[[Lane, asyncio.Event], Awaitable[None]] = _upload) -> Lane:
        async def with_lane(engine: AsyncEngine) -> Lane:
            transport = httpx.MockTransport(fake.answer)
            async with httpx.AsyncClient(base_url="http://argilla/api/v1/", transport=transport) as http:
                lane = Lane(DATASET, _DEFINITION, engine, Argilla(http), database_url, "w")
                lane.prepared = Prepared(DATASET_ID, QUESTION_ID)
                try:
                    await work(lane, asyncio.Event())
                except ArgillaError as error:
                    error.add_note(str(lane.prepared))
                    raise
                finally:
                    await lane.release()
                return lane

        lane: Lane = run(with_lane)
        return lane

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
    assert rows(_STATES) == [("pending", 0, True, True), ("pending", 0, True, True), ("pending", 0, True, None)]


def test_a_deleted_dataset_is_prepared_again(upload: Upload, add_texts: AddTexts) -> None:
    add_texts("a")
    with pytest.raises(Gone) as caught:
        upload(FakeArgilla(status=404))
    assert caught.value.__notes__ == ["None"]


def test_no_transaction_is_open_while_argilla_is_called(upload: Upload, add_texts: AddTexts, rows: Rows) -> None:
    seen = []

    async def look() -> None:
        open_ = rows(
            "select count(*) from pg_stat_activity where datname = current_database() "
            "and xact_start is not null and pid <> pg_backend_pid()"
        )
        seen.append(open_[0][0])

    add_texts("a")
    upload(FakeArgilla(before_put=look))
    assert seen == [0]


def test_a_claim_lost_meanwhile_changes_nothing(upload: Upload, add_texts: AddTexts, rows: Rows) -> None:
    async def work(lane: Lane, stopping: asyncio.Event) -> None:
        async def take_away() -> None:
            stopping.set()
            async with lane.engine.begin() as connection:
                await connection.execute(text("update texts set lease_owner = gen_random_uuid()"))

        fake.before_put = take_away
        await _upload(lane, stopping)

    fake = FakeArgilla()
    add_texts("a")
    upload(fake, work)
    assert rows(_STATES) == [("uploading", 0, False, None)]


def test_a_cancelled_upload_gives_back_what_it_holds(upload: Upload, add_texts: AddTexts, rows: Rows) -> None:
    async def work(lane: Lane, stopping: asyncio.Event) -> None:
        reached = asyncio.Event()

        async def hang() -> None:
            reached.set()
            await asyncio.sleep(60)

        fake.before_put = hang
        task = asyncio.create_task(_upload(lane, stopping))
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
    async def work(lane: Lane, stopping: asyncio.Event) -> None:
        stopping.set()
        await _upload(lane, stopping)

    add_texts("a")
    upload(FakeArgilla(), work)
    assert rows(_STATES) == [("pending", 0, True, None)]
