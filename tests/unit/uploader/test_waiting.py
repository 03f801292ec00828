"""Tests of uploader.runner and uploader.runner: who waits, and for how long."""

import asyncio

import psycopg

from uploader.argilla.errors import Stopped, Unreachable
from uploader.leadership import NotLeading
from uploader.runner import Backoff, JobAlert, JobRunner


class _Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_pauses_grow_up_to_the_cap() -> None:
    backoff = Backoff(15, _Clock())
    pauses = [backoff.fail() for _ in range(100)]
    for pause, longest in zip(pauses, [1, 2, 4, 8, 15, 15], strict=False):
        assert longest / 2 <= pause <= longest
    assert max(pauses) <= 15


def test_a_pause_ends() -> None:
    clock = _Clock()
    backoff = Backoff(15, clock)
    backoff.fail()
    assert backoff.is_on()
    clock.now += 1
    assert not backoff.is_on()


def test_success_forgets_the_failures() -> None:
    backoff = Backoff(15, _Clock())
    for _ in range(5):
        backoff.fail()
    backoff.succeed()
    assert not backoff.is_on()
    assert backoff.fail() <= 1


def _runner() -> tuple[JobRunner, _Clock]:
    clock = _Clock()
    return JobRunner("d", "push", Backoff(15, clock)), clock


async def _fail_with_argilla() -> None:
    raise Unreachable("Argilla is away")


async def _fail_with_postgres() -> None:
    raise psycopg.OperationalError("secret: text")


async def _work() -> None:
    return


async def _must_not_run() -> None:
    raise AssertionError


def test_a_guard_says_why_a_job_stands_still_and_pauses_it() -> None:
    runner, _ = _runner()
    asyncio.run(runner.run(_fail_with_argilla))
    asyncio.run(runner.run(_must_not_run))  # would change the reason
    assert runner.reason == "Argilla is away"


def test_a_guard_forgets_the_reason_when_the_work_goes_on() -> None:
    runner, clock = _runner()
    asyncio.run(runner.run(_fail_with_argilla))
    clock.now += 60
    asyncio.run(runner.run(_work))
    assert runner.reason is None


def test_long_work_is_shown_as_running_again_before_it_ends() -> None:
    runner, clock = _runner()
    asyncio.run(runner.run(_fail_with_argilla))
    clock.now += 60
    reasons = []

    async def long_work() -> None:
        runner.go_on()
        reasons.append(runner.reason)

    asyncio.run(runner.run(long_work))
    assert reasons == [None]


def test_a_guard_does_not_repeat_what_a_statement_quotes() -> None:
    runner, _ = _runner()
    asyncio.run(runner.run(_fail_with_postgres))
    assert runner.reason == "Postgres: OperationalError"


def test_a_guard_shows_mistakes_of_ours() -> None:
    runner, _ = _runner()
    asyncio.run(runner.run(_must_not_run))
    assert runner.reason == "a mistake in the uploader: AssertionError"


async def _fail_for_good() -> None:
    raise Stopped("set another key", "argilla_key_unknown")


async def _lose_the_lead() -> None:
    raise NotLeading


def test_only_what_somebody_must_mend_is_an_alert() -> None:
    runner, clock = _runner()
    alerts: list[JobAlert | None] = []
    for work in (_fail_for_good, _fail_with_argilla, _must_not_run, _work):
        asyncio.run(runner.run(work))
        alerts.append(runner.alert)
        clock.now += 60
    assert alerts[0] == JobAlert("argilla_key_unknown", "set another key")
    assert [alert.code if alert else None for alert in alerts[1:]] == [None, "uploader_crash", None]


def test_a_guard_that_has_not_run_knows_of_no_alert() -> None:
    runner, _ = _runner()
    assert not runner.has_run
    asyncio.run(runner.run(_fail_for_good))
    assert runner.has_run
    runner.stand_by()
    assert (runner.has_run, runner.alert, runner.reason) == (False, None, None)


def test_losing_the_lead_is_no_failure() -> None:
    runner, _ = _runner()
    asyncio.run(runner.run(_lose_the_lead))
    assert (runner.has_run, runner.reason) == (False, None)
    asyncio.run(runner.run(_work))
    assert runner.has_run


def test_a_pause_that_is_on_is_not_begun_again() -> None:
    runner, clock = _runner()
    first = runner.pause()
    assert runner.pause() == first
    clock.now += 1
    assert runner.pause() >= 1  # the second one
