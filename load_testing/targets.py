"""Which platform is loaded: one that is named, the local stack that runs, or one that is started for it."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import httpx

_LOOK_SECONDS = 0.5


class Target(NamedTuple):
    """Where both APIs are."""

    ingestion_url: str
    serving_url: str


@contextmanager
def find_target(texts: int) -> Iterator[Target]:
    """Give what INGESTION_URL and SERVING_URL name, else the running stack, else a new one with so many texts.

    Raises:
        SystemExit: what is named does not answer.
    """
    if target := _named() or _running():
        for url in target:
            _check_ready(url)
        yield target
        return
    # Takes half a second, and mostly is not needed.
    from local_stack.testing import running_stack

    print("No stack runs: starting one, with data of its own.", flush=True)  # noqa: T201
    with running_stack() as stack:
        if texts:
            command = [sys.executable, "-m", "cli", "demo-data", "--texts", str(texts)]
            subprocess.run(command, env=os.environ | {"DATABASE_URL": stack.database_url}, check=True)  # noqa: S603
        target = Target(stack.ingestion_url, stack.serving_url)
        while labelled_texts(target, {}) < texts:
            time.sleep(_LOOK_SECONDS)
        yield target


def labelled_texts(target: Target, headers: dict[str, str]) -> int:
    """Return how many labelled texts are served.

    Raises:
        SystemExit: the serving API does not say.
    """
    answer = httpx.get(f"{target.serving_url}/stats", headers=headers)
    if answer.is_error:
        raise SystemExit(f"{target.serving_url}/stats: {answer.status_code}. Does ANNOTATE_API_KEY hold a key?")
    total: int = answer.json()["total"]
    return total


def _named() -> Target | None:
    urls = [os.environ.get(name, "").rstrip("/") for name in ("INGESTION_URL", "SERVING_URL")]
    if not any(urls):
        return None
    if not all(urls):
        raise SystemExit("Set both INGESTION_URL and SERVING_URL, or neither.")
    return Target(*urls)


def _running() -> Target | None:
    file = Path(os.environ.get("DATA_DIR") or ".data") / "stack.json"
    if not file.is_file():
        return None
    stack = json.loads(file.read_text())
    return Target(stack["ingestion_url"], stack["serving_url"])


def _check_ready(url: str) -> None:
    try:
        answer = httpx.get(f"{url}/readyz")
    except httpx.TransportError as error:
        raise SystemExit(f"{url} does not answer: {error}. Start it with `make up`.") from None
    if answer.is_error:
        raise SystemExit(f"{url} is not ready: {answer.text:.500}")


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
