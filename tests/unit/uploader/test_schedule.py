"""Tests of uploader.runner: jobs run at their intervals, and end."""

import asyncio

from uploader.runner import Schedule


def test_a_job_never_overlaps_with_itself() -> None:
    running = most = runs = 0
    enough = asyncio.Event()

    async def job(_stopping: asyncio.Event) -> None:
        nonlocal running, most, runs
        running += 1
        runs += 1
        most = max(most, running)
        await asyncio.sleep(0.05)
        running -= 1
        if runs > 2:
            enough.set()

    async def work() -> None:
        schedule = Schedule()
        schedule.add(job, 0.02)
        schedule.start()
        await asyncio.wait_for(enough.wait(), 60)
        await schedule.stop(60)

    asyncio.run(work())
    assert (running, most) == (0, 1)


def test_stopping_lets_a_job_end() -> None:
    ended = False
    begun = asyncio.Event()

    async def job(stopping: asyncio.Event) -> None:
        nonlocal ended
        begun.set()
        await stopping.wait()
        await asyncio.sleep(0.05)
        ended = True

    async def work() -> None:
        schedule = Schedule()
        schedule.add(job, 10)
        schedule.start()
        await begun.wait()
        await schedule.stop(60)

    asyncio.run(work())
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

    async def work() -> None:
        schedule = Schedule()
        schedule.add(job, 10)
        schedule.start()
        await begun.wait()
        await schedule.stop(0.1)

    asyncio.run(work())
    assert was_cancelled
