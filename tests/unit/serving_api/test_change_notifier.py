"""Tests of serving_api.changes.service."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from core.web.rate_limits import Places
from serving_api.changes.service import ChangeNotifier


def test_who_waited_before_anything_was_read_goes_on_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serving_api.changes.repository.newest_versions", lambda *_: {})

    async def scenario() -> None:
        may_read, has_read = asyncio.Event(), asyncio.Event()

        async def run(work: Any) -> None:
            await may_read.wait()
            work(None, SimpleNamespace(identity="cluster", version=1))
            has_read.set()

        notifier = ChangeNotifier(SimpleNamespace(run=run), Places("waits", 1, 1))  # type: ignore[arg-type]
        async with asyncio.timeout(60), notifier.running():
            waiting = asyncio.create_task(notifier.wait_beyond("toxicity", 0))
            await asyncio.sleep(0)
            may_read.set()
            await has_read.wait()
            await asyncio.sleep(0.05)
            assert not waiting.done()
        await waiting

    asyncio.run(scenario())
