"""Tests of uploader.runner: jobs run at their intervals, and end."""

import asyncio

from uploader.runner import Job, running


def _run(job: Job, until: asyncio.Event, seconds: float = 10, stop_seconds: float = 60) -> None:
    async def work() -> None:
        async with running([(seconds, job)], stop_seconds):
            await asyncio.wait_for(until.wait(), 60)

    asyncio.run(work())


def test_a_job_never_overlaps_with_itself() -> None:
    at_once = most = runs = 0
    enough = asyncio.Event()

    async def job(_stopping: asyncio.Event) -> None:
        nonlocal at_once, most, runs
        at_once += 1
        runs += 1
        most = max(most, at_once)
        await asyncio.sleep(0.05)
        at_once -= 1
        if runs > 2:
            enough.set()

    _run(job, enough, 0.02)
    assert (at_once, most) == (0, 1)


def test_stopping_lets_a_job_end() -> None:
    ended = False
    begun = asyncio.Event()

    async def job(stopping: asyncio.Event) -> None:
        nonlocal ended
        begun.set()
        await stopping.wait()
        await asyncio.sleep(0.05)
        ended = True

    _run(job, begun)
    assert ended


def test_stopping_cancels_a_job_that_takes_too_long() -> None:
    was_cancelled = False
    begun = asyncio.Event()

    async def job(_stopping: asyncio.Event) -> None:
        nonlocal was_cancelled
        begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            was_cancelled = True
            raise

    _run(job, begun, stop_seconds=0.1)
    assert was_cancelled


def test_stopping_does_not_wait_for_the_next_run() -> None:
    begun = asyncio.Event()

    async def job(_stopping: asyncio.Event) -> None:
        begun.set()

    async def work() -> None:
        await asyncio.wait_for(asyncio.to_thread(_run, job, begun, 1e6), 30)

    asyncio.run(work())
