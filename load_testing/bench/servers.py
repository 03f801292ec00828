"""Starts what is measured, each as a process of its own."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import httpx

_START_SECONDS = 60


class Server(NamedTuple):
    """A running server."""

    url: str
    pid: int


def api_environment(database_url: str) -> dict[str, str]:
    """Return the settings with which an API is measured."""
    return {"DATABASE_URL": database_url, "REQUIRE_API_KEY": "false", "LOG_LEVEL": "WARNING"}


@contextmanager
def serving(arguments: list[str], env: dict[str, str]) -> Iterator[Server]:
    """Run `python -m arguments`, `{port}` being a free one, until the block ends."""
    with running_server([sys.executable, "-m", *arguments], env, "/openapi.json") as server:
        yield server


@contextmanager
def running_server(command: list[str], env: dict[str, str], path: str) -> Iterator[Server]:
    """Run a program, `{port}` in its arguments being a free one, until the block ends.

    It begins when `path` is answered.

    Raises:
        RuntimeError: the program ended, or did not answer in time.
    """
    port = free_port()
    process = subprocess.Popen(  # noqa: S603 - our own programs and locked ones
        [argument.format(port=port) for argument in command],
        env=os.environ | env | {"INGESTION_PORT": str(port), "SERVING_PORT": str(port)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        _wait_until_open(f"http://127.0.0.1:{port}{path}", process)
        yield Server(f"http://127.0.0.1:{port}", process.pid)
    finally:
        process.terminate()
        process.wait()


@contextmanager
def serving_peer(name: str, env: dict[str, str]) -> Iterator[Server]:
    """Run one of load_testing.bench.peers under the same server as ours."""
    app = f"load_testing.bench.peers:{name}"
    arguments = ["uvicorn", app, "--factory", "--port", "{port}", "--no-access-log", "--log-level", "warning"]
    with serving(arguments, env) as server:
        yield server


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
    return port


def _wait_until_open(url: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            httpx.get(url)
        except httpx.TransportError:
            time.sleep(0.1)
        else:
            return
    raise RuntimeError(f"{url} did not start")
