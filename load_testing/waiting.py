"""Waiting for servers."""

import time
from collections.abc import Callable, Mapping

import httpx

_PAUSE_SECONDS = 0.2


def holds_within(seconds: float, condition: Callable[[], bool]) -> bool:
    """Wait until the condition holds, for so many seconds at most; return whether it did."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(_PAUSE_SECONDS)
    return True


def is_ok(url: str, headers: Mapping[str, str] | None = None) -> bool:
    """Whether something listens there, and answers with a 2xx."""
    try:
        return httpx.get(url, headers=headers).is_success
    except httpx.TransportError:
        return False
