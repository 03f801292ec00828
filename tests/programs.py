"""Runs the platform's programs as processes of their own, so that tests may kill them."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx

_START_SECONDS = 60


@dataclass(frozen=True)
class Program:
    """A running program."""

    url: str
    process: subprocess.Popen[bytes]
    log: Path

    def kill(self) -> None:
        """Kill it as a crash would."""
        self.process.kill()
        self.process.wait()


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
    return port


@contextmanager
def running(
    module: str, env: Mapping[str, str], log: Path, probe: str = "/healthz", port: int | None = None
) -> Iterator[Program]:
    """Run `python -m module`, on a free port unless one is given, until the block ends; SIGTERM stops it."""
    port = port or free_port()
    prefix = module.removesuffix("_api").upper()
    own = {f"{prefix}_PORT": str(port), "REQUIRE_API_KEY": "false", "LOG_FORMAT": "console"}
    with log.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", module], env=os.environ | own | dict(env), stdout=output, stderr=output
        )
    program = Program(f"http://127.0.0.1:{port}", process, log)
    try:
        _wait(program, probe)
        yield program
    finally:
        process.terminate()
        try:
            process.wait(20)
        finally:
            process.kill()
            process.wait()


def _wait(program: Program, probe: str) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline:
        assert program.process.poll() is None, program.log.read_text()
        with suppress(httpx.TransportError):  # not listening yet
            if httpx.get(program.url + probe).status_code == 200:
                return
        time.sleep(0.05)
    raise AssertionError(f"{program.url} did not start:\n{program.log.read_text()}")
