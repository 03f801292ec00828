"""Tests of uploader.pull.collector on a model of Argilla: what becomes of the notes."""

import asyncio
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import psycopg
import pytest
from prometheus_client import REGISTRY

from tests.integration.uploader.conftest import ANN, AddTexts, Pulling, Rows
from tests.integration.uploader.leading import DATASET
from tests.integration.uploader.model_argilla import DATASET_ID, ModelArgilla
from tests.integration.uploader.pulling import Side
from uploader.argilla.errors import Unreachable
from uploader.pull.collector import DELETED, follow_refresh_requests, listen, pull_once
from uploader.runner import Backoff, JobRunner

_SEARCH = "POST dataset/records/search"


@pytest.fixture
def upload(add_texts: AddTexts, model: ModelArgilla) -> AddTexts:
    """Add texts with their records, as if they had been uploaded just now."""

    def upload_(*texts: str, **columns: Any) -> list[UUID]:
        values = {"status": "uploaded", "uploaded_at": datetime.now(UTC)} | columns
        ids = add_texts(*texts, **values)
        model.add_records(*ids)
        return ids

    return upload_


def test_what_argilla_holds_counts_not_what_events_say(
    pull: Pulling, upload: AddTexts, model: ModelArgilla, rows: Rows
) -> None:
    async def work(side: Side) -> None:
        [id_] = upload("a")
        first = model.respond(id_, ANN, "submitted", "toxic")
        second = model.respond(id_, ANN, "submitted", "non_toxic")
        for event in (second, first, first):  # in the wrong order, and twice
            assert await side.deliver(event)
            await side.pull()

    pull(work)
    assert rows("select label, annotations from labels") == [("non_toxic", 1)]
    assert rows("select count(*) from rereads") == [(0,)]


def test_many_events_are_few_searches(pull: Pulling, upload: AddTexts, model: ModelArgilla, rows: Rows) -> None:
    async def work(side: Side) -> None:
        for id_ in upload(*(f"t{i}" for i in range(300))):
            await side.deliver(model.respond(id_, ANN, "draft", "toxic"))
            await side.deliver(model.respond(id_, ANN, "submitted", "toxic"))
        assert await side.pull() == 300

    pull(work)
    assert rows("select count(*) from labels where label = 'toxic'") == [(300,)]
    assert model.calls[_SEARCH] == 2


def test_an_event_that_comes_while_its_text_is_read_is_not_lost(
    pull: Pulling, upload: AddTexts, model: ModelArgilla, rows: Rows
) -> None:
    async def work(side: Side) -> None:
        [id_] = upload("a")
        await side.deliver(model.respond(id_, ANN, "submitted", "toxic"))

        async def change_once() -> None:
            del model.after[_SEARCH]
            await side.deliver(model.respond(id_, ANN, "submitted", "non_toxic"))

        model.after[_SEARCH] = change_once
        assert await pull_once(side.collector, DATASET_ID) == 1
        assert await pull_once(side.collector, DATASET_ID) == 1

    pull(work)
    assert rows("select label from labels") == [("non_toxic",)]


def test_an_outage_keeps_the_notes(pull: Pulling, upload: AddTexts, model: ModelArgilla, rows: Rows) -> None:
    async def work(side: Side) -> None:
        [id_] = upload("a")
        await side.deliver(model.respond(id_, ANN, "submitted", "toxic"))
        model.is_away = True
        with pytest.raises(Unreachable):
            await side.pull()
        model.is_away = False
        assert await side.pull() == 1

    pull(work)
    assert rows("select label from labels") == [("toxic",)]


def test_a_record_that_the_index_lost_is_read_from_the_database(
    pull: Pulling, upload: AddTexts, model: ModelArgilla, rows: Rows
) -> None:
    async def work(side: Side) -> None:
        [id_] = upload("a")
        event = model.respond(id_, ANN, "submitted", "toxic")
        model.records[str(id_)].is_visible = False
        await side.deliver(event)
        assert await side.pull() == 1

    pull(work)
    assert rows("select label from labels") == [("toxic",)]
    assert rows("select status from texts") == [("pending",)]  # to be shown again


def test_a_record_that_is_deleted_before_it_is_shown_again_withdraws_its_annotations(
    pull: Pulling, upload: AddTexts, model: ModelArgilla, rows: Rows
) -> None:
    async def work(side: Side) -> None:
        [id_] = upload("a")
        event = model.respond(id_, ANN, "submitted", "toxic")
        model.records[str(id_)].is_visible = False
        await side.deliver(event)
        await side.pull()
        await side.deliver(model.delete_record(id_))
        await side.pull()

    pull(work)
    assert rows("select status from texts") == [("failed",)]
    assert rows("select status from labels") == [("withdrawn",)]


def test_a_deleted_record_fails_its_text(pull: Pulling, upload: AddTexts, model: ModelArgilla, rows: Rows) -> None:
    async def work(side: Side) -> None:
        [id_] = upload("a")
        await side.deliver(model.respond(id_, ANN, "submitted", "toxic"))
        await side.pull()
        await side.deliver(model.delete_record(id_))
        await side.pull()

    pull(work)
    assert rows("select status, last_error from texts") == [("failed", DELETED)]
    assert rows("select status from labels") == [("withdrawn",)]


def test_a_record_that_is_made_again_keeps_its_annotations(
    pull: Pulling, upload: AddTexts, model: ModelArgilla, rows: Rows
) -> None:
    async def work(side: Side) -> None:
        [id_] = upload("a")
        await side.deliver(model.respond(id_, ANN, "submitted", "toxic"))
        await side.pull()
        with psycopg.connect(side.state.engine.url.render_as_string(False).replace("+psycopg", "")) as connection:
            connection.execute("update texts set status = 'pending', last_error = 'refused'")  # by a retry
        await side.deliver(model.delete_record(id_))
        assert await side.pull() == 1

    pull(work)
    assert rows("select status from texts") == [("pending",)]
    assert rows("select label from labels") == [("toxic",)]


def test_a_note_is_read_as_soon_as_it_is_made(
    pull: Pulling, upload: AddTexts, model: ModelArgilla, rows: Rows, database_url: str
) -> None:
    async def work(side: Side) -> None:
        [id_] = upload("a")
        wake, stopping = asyncio.Event(), asyncio.Event()
        runner = JobRunner(DATASET, "pull", Backoff(15))
        jobs = [
            asyncio.create_task(follow_refresh_requests(side.collector, wake, stopping, runner.go_on)),
            asyncio.create_task(listen(database_url, {DATASET: wake}, stopping, runner.go_on)),
        ]
        await side.deliver(model.respond(id_, ANN, "submitted", "toxic"))
        async with asyncio.timeout(60):
            while rows("select label from labels") != [("toxic",)]:  # noqa: ASYNC110 - in Postgres
                await asyncio.sleep(0.05)
            stopping.set()
            await asyncio.gather(*jobs)

    pull(work)
    assert rows("select count(*) from rereads") == [(0,)]


def _refused_repairs() -> float:
    labels = {"dataset": DATASET, "repair": "response"}
    return REGISTRY.get_sample_value("uploader_refused_repairs_total", labels) or 0


async def _pull_one_without_values(side: Side, upload: AddTexts, model: ModelArgilla) -> dict[str, Any]:
    """Read a discarded response that has no values at all, as Argilla's API lets clients store it."""
    [id_] = upload("a")
    event = model.respond(id_, ANN, "discarded", None)
    given = model.records[str(id_)].responses[ANN]
    given["values"] = None
    await side.deliver(event)
    await side.pull()
    return given


@pytest.mark.parametrize(("answered", "values"), [(None, {}), (403, None), (500, None)])
def test_a_response_without_values_is_given_some_so_that_its_record_can_be_put_again(
    pull: Pulling, upload: AddTexts, model: ModelArgilla, rows: Rows, answered: int | None, values: object
) -> None:
    before = _refused_repairs()

    async def work(side: Side) -> None:
        if answered:
            model.statuses["PUT responses"] = answered
        given = await _pull_one_without_values(side, upload, model)
        assert (given["status"], given["values"]) == ("discarded", values)

    pull(work)
    # A refused repair is repeated when the text is read again; the answer counts unchanged.
    assert rows("select status, value from annotations") == [("discarded", None)]
    assert rows("select count(*) from rereads") == [(0,)]
    assert _refused_repairs() - before == (answered is not None)


def test_an_outage_while_a_response_is_given_values_keeps_the_note(
    pull: Pulling, upload: AddTexts, model: ModelArgilla, rows: Rows
) -> None:
    async def work(side: Side) -> None:
        model.statuses["PUT responses"] = 503
        with pytest.raises(Unreachable):
            await _pull_one_without_values(side, upload, model)

    pull(work)
    assert rows("select count(*) from rereads") == [(1,)]


def test_users_are_listed_once_for_all_annotators_that_are_known(
    pull: Pulling, upload: AddTexts, model: ModelArgilla, rows: Rows
) -> None:
    """Also for one whom Argilla does not know any more."""

    async def work(side: Side) -> None:
        [id_] = upload("a")
        for user in (ANN, UUID(int=29)):
            for value in ("toxic", "non_toxic"):
                await side.deliver(model.respond(id_, user, "submitted", value))
                await side.pull()

    pull(work)
    assert model.calls["GET users"] == 2
    assert rows("select annotator from annotations order by 1") == [(str(UUID(int=29)),), ("ann",)]


def test_what_was_read_before_a_record_was_deleted_is_not_taken_over_afterwards(
    pull: Pulling, upload: AddTexts, model: ModelArgilla, rows: Rows
) -> None:
    async def work(side: Side) -> None:
        [id_] = upload("a")
        model.respond(id_, ANN, "submitted", "toxic")
        read_at = datetime.now(UTC)
        found = await side.state.argilla.read_responses(DATASET_ID, [str(id_)])
        await side.deliver(model.delete_record(id_))
        await side.pull()
        await side.collector.take_over(DATASET_ID, found, read_at)

    pull(work)
    assert rows("select status from texts") == [("failed",)]
    assert rows("select count(*) from labels") == [(0,)]
