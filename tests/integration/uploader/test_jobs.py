"""Tests of uploader.jobs: the running jobs, and the reports about blocked ones."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import uuid4

import anyio
import httpx
import psycopg
from prometheus_client import REGISTRY
from pydantic import SecretStr
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from core.datasets import Dataset
from core.settings import ArgillaSettings, DatabaseSettings
from tests.integration.uploader.conftest import AddTexts, Rows, RunWithEngine
from tests.integration.uploader.fake_argilla import DATASET_ID, QUESTION_ID, FakeArgilla
from tests.integration.uploader.leading import DATASET, get_database
from uploader import metrics
from uploader.argilla.client import Argilla
from uploader.argilla.setup import Prepared
from uploader.argilla.webhook import Registration
from uploader.dataset import ConcurrencyLimit, DatasetState
from uploader.jobs import DatasetJobs, SharedJobs
from uploader.leadership import Leadership
from uploader.settings import Settings, UploaderSettings

_ALERTS = "select dataset, job, code from alerts order by job"

Work = Callable[[DatasetJobs, DatasetState, asyncio.Event], Awaitable[None]]


def _settings(database: DatabaseSettings) -> Settings:
    return Settings(
        # Without pauses, so that a test need not wait for them to end.
        uploader=UploaderSettings(retry_cap_seconds=1e-9),
        database=database,
        argilla=ArgillaSettings(api_key=SecretStr("test.key")),
        datasets={DATASET: Dataset(labels=("toxic", "non_toxic"), guidelines="x")},
    )


def _make_shared(engine: AsyncEngine) -> SharedJobs:
    return SharedJobs(
        engine, Registration(Argilla(httpx.AsyncClient()), engine, None, "w"), {}, _settings(get_database(engine))
    )


def _run_jobs(run: RunWithEngine, fake: FakeArgilla, work: Work) -> None:
    async def with_jobs(engine: AsyncEngine) -> Any:
        transport = httpx.MockTransport(fake.answer)
        async with httpx.AsyncClient(base_url="http://argilla/api/v1/", transport=transport) as http:
            settings = _settings(get_database(engine))
            leadership = Leadership(engine, DATASET, 60)
            argilla = Argilla(http)
            state = DatasetState(DATASET, settings.datasets, engine, argilla, "w", leadership, ConcurrencyLimit(1))
            state.prepared = Prepared(DATASET_ID, QUESTION_ID)
            limiters = anyio.CapacityLimiter(1), anyio.CapacityLimiter(1)
            jobs = DatasetJobs(state, Registration(argilla, engine, None, "w"), settings, *limiters)
            await work(jobs, state, asyncio.Event())
            await leadership.release()

    run(with_jobs)


def test_one_that_stands_by_touches_nothing(run: RunWithEngine, add_texts: AddTexts, rows: Rows) -> None:
    async def work(jobs: DatasetJobs, _state: DatasetState, stopping: asyncio.Event) -> None:
        await jobs.run("push", stopping)
        await jobs.run("sweep", stopping)
        await jobs.run("tell", stopping)

    add_texts("a")
    fake = FakeArgilla(status=401)
    _run_jobs(run, fake, work)
    assert rows("select status from texts") == [("pending",)]
    assert rows(_ALERTS) == []


def test_an_alert_stands_until_the_job_goes_on(run: RunWithEngine, add_texts: AddTexts, rows: Rows) -> None:
    add_texts("a")
    fake = FakeArgilla(status=401)
    seen = []

    async def work(jobs: DatasetJobs, state: DatasetState, stopping: asyncio.Event) -> None:
        await state.leadership.hold()
        for status in (401, 401, 403, 200):
            fake.status = status
            state.prepared = Prepared(DATASET_ID, QUESTION_ID)
            await jobs.run("push", stopping)
            await jobs.run("tell", stopping)
            seen.append(rows("select code, since from alerts"))
            add_texts(f"after {len(seen)}")

    _run_jobs(run, fake, work)
    [unknown], again, [forbidden], nothing = seen
    assert unknown[0] == "argilla_key_unknown"
    assert again == [unknown]  # the alert keeps its time
    assert forbidden[0] == "argilla_key_forbidden"
    assert forbidden[1] > unknown[1]
    assert nothing == []


def test_a_new_leader_clears_what_the_former_left_once_it_knows(
    run: RunWithEngine, rows: Rows, add_texts: AddTexts
) -> None:
    seen = []

    async def former(jobs: DatasetJobs, state: DatasetState, stopping: asyncio.Event) -> None:
        await state.leadership.hold()
        await jobs.run("push", stopping)
        await jobs.run("tell", stopping)

    async def new(jobs: DatasetJobs, state: DatasetState, stopping: asyncio.Event) -> None:
        await state.leadership.hold()
        await jobs.run("tell", stopping)
        seen.append(rows(_ALERTS))
        await jobs.run("push", stopping)
        await jobs.run("tell", stopping)
        seen.append(rows(_ALERTS))

    add_texts("a")
    _run_jobs(run, FakeArgilla(status=401), former)
    _run_jobs(run, FakeArgilla(), new)
    assert seen == [[(DATASET, "push", "argilla_key_unknown")], []]


def test_an_outage_is_no_alert(run: RunWithEngine, rows: Rows, add_texts: AddTexts) -> None:
    async def work(jobs: DatasetJobs, state: DatasetState, stopping: asyncio.Event) -> None:
        await state.leadership.hold()
        await jobs.run("push", stopping)
        await jobs.run("tell", stopping)

    add_texts("a")
    _run_jobs(run, FakeArgilla(is_away=True), work)
    assert rows(_ALERTS) == []


def test_notes_and_the_database_are_measured(
    run: RunWithEngine, add_texts: AddTexts, rows: Rows, database_url: str
) -> None:
    [id_] = add_texts("a")
    with psycopg.connect(database_url) as connection:
        connection.execute(
            "insert into rereads (text_id, dataset, argilla_record_id, event_at, received_at, stamp)"
            " values (%s, %s, %s, now(), now() - interval '1 hour', %s)",
            [id_, DATASET, uuid4(), uuid4()],
        )

    async def work(jobs: DatasetJobs, state: DatasetState, stopping: asyncio.Event) -> None:
        await jobs.run("measure", stopping)
        await _make_shared(state.engine).run("database", stopping)

    _run_jobs(run, FakeArgilla(), work)
    shown = {sample.name: sample for metric in REGISTRY.collect() for sample in metric.samples}
    assert shown["uploader_waiting_notes"].value == 1
    assert 3600 <= shown["uploader_oldest_note_seconds"].value < 3900
    assert shown["uploader_database_bytes"].value > 1_000_000


def test_measuring_survives_an_outage(run: RunWithEngine) -> None:
    async def work(_jobs: DatasetJobs, _state: DatasetState, stopping: asyncio.Event) -> None:
        engine = create_async_engine("postgresql+psycopg://nobody@127.0.0.1:1/none")
        await _make_shared(engine).run("database", stopping)
        await engine.dispose()

    _run_jobs(run, FakeArgilla(), work)
    labels = {"dataset": "", "task": "database", "reason": "database"}
    assert REGISTRY.get_sample_value("uploader_job_stopped", labels) == 1
    metrics.JOB_STOPPED.labels(*labels.values()).set(0)


def test_a_statement_that_postgres_refuses_is_an_alert_and_no_outage(
    run: RunWithEngine, database_url: str, rows: Rows
) -> None:
    """A job that such an error stops would otherwise stay so without a word."""

    async def work(jobs: DatasetJobs, state: DatasetState, stopping: asyncio.Event) -> None:
        await state.leadership.hold()
        with psycopg.connect(database_url) as connection:
            connection.execute("alter table forget_requests rename column text_id to away")
        await jobs.run("forget", stopping)
        await jobs.run("tell", stopping)

    _run_jobs(run, FakeArgilla(), work)
    assert rows(_ALERTS) == [(DATASET, "forget", "database_refused")]
    [(reason,)] = rows("select reason from alerts")
    assert "ProgrammingError" in reason


def test_forget_requests_that_take_too_long_are_measured_and_noted(
    run: RunWithEngine, add_texts: AddTexts, database_url: str
) -> None:
    """Also those of a dataset that the settings no longer define: no job works on them."""
    for dataset, age in ((DATASET, "2 minutes"), ("gone", "2 hours")):
        [id_] = add_texts("a", dataset=dataset)
        with psycopg.connect(database_url) as connection:
            connection.execute(
                "insert into forget_requests"
                " (text_id, dataset, requested_at, requested_by, imports_until, was_labelled)"
                " values (%s, %s, now() - cast(%s as interval), 'tester', 0, false)",
                [id_, dataset, age],
            )
    notes: list[str | None] = []
    ages: list[float | None] = []

    def age_of(dataset: str) -> float | None:
        return REGISTRY.get_sample_value("uploader_forget_oldest_seconds", {"dataset": dataset})

    async def work(_jobs: DatasetJobs, state: DatasetState, stopping: asyncio.Event) -> None:
        jobs = _make_shared(state.engine)
        await jobs.run("forget_watch", stopping)
        notes.append(await jobs.check_forgetting())
        ages.extend([age_of(DATASET), age_of("gone")])
        with psycopg.connect(database_url) as connection:
            connection.execute("update forget_requests set imports_at = now(), argilla_at = now()")
        await jobs.run("forget_watch", stopping)
        notes.append(await jobs.check_forgetting())
        ages.extend([age_of(DATASET), age_of("gone")])

    _run_jobs(run, FakeArgilla(), work)
    assert notes[0] is not None
    assert notes[0].startswith("gone: A forget request is not finished: the body of an import")
    assert notes[1] is None
    young, old, *finished = ages
    assert young is not None
    assert old is not None
    assert 120 <= young < 3600 < old
    assert finished == [0, 0]
