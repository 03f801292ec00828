"""A client of `GET /changes` that takes nothing, seen from within."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any, cast

import anyio
from starlette.types import Message

from core.datasets import DEFAULT_DATASET
from serving_api.changes.endpoints import ChangesStream
from serving_api.changes.service import Changes, ChangesQuery
from serving_api.settings import ServingSettings


async def one_event(_: object) -> AsyncIterator[bytes]:
    yield b"data: x\n\n"


async def no_message() -> Message:
    await anyio.sleep_forever()
    raise AssertionError


async def stuck(message: Message) -> None:
    if message["type"] == "http.response.body":
        await anyio.sleep_forever()


async def send_to_stuck() -> None:
    notifier = SimpleNamespace(waiting=lambda _: nullcontext())
    changes = cast(Changes, SimpleNamespace(notifier=notifier, events=one_event))
    settings = ServingSettings(changes_heartbeat_seconds=0.05, changes_send_seconds=0.3)
    query = ChangesQuery(DEFAULT_DATASET, 0, 100, None)
    scope: dict[str, Any] = {"type": "http", "method": "GET"}
    # A busy machine: when it continues, the time of both is over.
    asyncio.get_running_loop().call_later(0.15, time.sleep, 0.5)
    with anyio.fail_after(10):
        await ChangesStream(changes, query, settings)(scope, no_message, stuck)


def test_a_heartbeat_that_runs_out_of_time_with_an_event_is_no_error() -> None:
    asyncio.run(send_to_stuck())
