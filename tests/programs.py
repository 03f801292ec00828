"""Runs the platform's programs as processes of their own, so that tests may kill them."""

import atexit
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import IO, Any

import httpx

from tests.forking import NUMBER

_START_SECONDS = 240


class Process:
    """A program's process, used as `subprocess.Popen` is."""

    def __init__(self, report: int) -> None:
        """Take the pipe with the process id and, later, the exit code."""
        self.returncode: int | None = None
        self._report = report
        [self.pid] = NUMBER.unpack(os.read(report, NUMBER.size))

    def poll(self) -> int | None:
        """Return the exit code, negative for a signal; None while it runs."""
        with suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Return the exit code once it has ended.

        Raises:
            subprocess.TimeoutExpired: it still runs after `timeout` seconds.
        """
        if self.returncode is None:
            if not select.select([self._report], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(str(self.pid), timeout or 0)
            [self.returncode] = NUMBER.unpack(os.read(self._report, NUMBER.size))
            os.close(self._report)
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send a signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        """Ask it to end."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Kill it."""
        self.send_signal(signal.SIGKILL)


@dataclass(frozen=True)
class Program:
    """A running program."""

    url: str
    process: Process
    log: Path

    def kill(self) -> None:
        """Kill it as a crash would."""
        self.process.kill()
        self.process.wait()


def free_port() -> int:
    """Return a port without a server."""
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
        process = _start(module, [], own | dict(env), output, output)
    program = Program(f"http://127.0.0.1:{port}", process, log)
    try:
        _wait(program, probe)
        yield program
    finally:
        process.terminate()
        try:
            process.wait(60)
        finally:
            process.kill()
            process.wait()


def run(
    module: str, *arguments: str, env: Mapping[str, str], seconds: float = 120
) -> subprocess.CompletedProcess[str]:
    """Run `python -m module` with arguments to its end, and return its output.

    Raises:
        subprocess.TimeoutExpired: it did not end within `seconds`, and was killed.
    """
    with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as errors:
        process = _start(module, arguments, env, output, errors)
        try:
            process.wait(seconds)
        finally:
            process.kill()
        output.seek(0)
        errors.seek(0)
        return subprocess.CompletedProcess(arguments, process.wait(), output.read(), errors.read())


def _start(
    module: str, arguments: Sequence[str], env: Mapping[str, str], output: IO[Any], errors: IO[Any]
) -> Process:
    order = {"module": module, "arguments": arguments, "env": {**os.environ, **env}}
    body = json.dumps(order).encode()
    reading, writing = os.pipe()
    files = [output.fileno(), errors.fileno(), writing]
    socket.send_fds(_forking(), [NUMBER.pack(len(body))], files)
    _forking().sendall(body)
    os.close(writing)
    return Process(reading)


@cache
def _forking() -> socket.socket:
    """Start what becomes the programs; it ends with this process."""
    if shared := os.environ.get("TEST_FORKING_FD"):  # `make mutants` lets many runs share one
        return socket.socket(fileno=os.dup(int(shared)))
    ours, theirs = socket.socketpair()
    with theirs:
        command = [sys.executable, "-m", "tests.forking", str(theirs.fileno())]
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, pass_fds=[theirs.fileno()])

    def end() -> None:
        ours.close()
        process.wait()

    atexit.register(end)
    return ours


def _wait(program: Program, probe: str) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline:
        assert program.process.poll() is None, program.log.read_text()
        with suppress(httpx.TransportError):  # not listening yet
            if httpx.get(program.url + probe).status_code == 200:
                return
        time.sleep(0.05)
    raise AssertionError(f"{program.url} did not start:\n{program.log.read_text()}")
