"""How fast a server answers, and how much processor time it takes for it."""

import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass

import psutil

from load_testing.bench.http_load import Load, get_all
from load_testing.bench.servers import Server

CLIENTS = 16
_WARM_SECONDS = 0.3
_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Measured:
    """A load, and the processor time that the server took for it."""

    load: Load
    cpu_seconds: float

    @property
    def answers_per_core(self) -> float:
        """Answers a second of processor time."""
        return len(self.load.latencies_seconds) / max(self.cpu_seconds, 0.01)

    @property
    def cores(self) -> float:
        """Processor time of the server by time."""
        return self.cpu_seconds / self.load.seconds


def measure_gets(server: Server, paths: Iterable[str], status: int = 200, headers: str = "") -> Measured:
    """Ask for the paths in turn, for some seconds."""
    waiting = iter(paths)
    get_all(server.url, _for_seconds(waiting, _WARM_SECONDS), CLIENTS, status, headers)
    before = _cpu_seconds(server.pid)
    load = get_all(server.url, _for_seconds(waiting, _SECONDS), CLIENTS, status, headers)
    return Measured(load, _cpu_seconds(server.pid) - before)


def _for_seconds(paths: Iterator[str], seconds: float) -> Iterator[str]:
    until = time.monotonic() + seconds
    for path in paths:
        yield path
        if time.monotonic() > until:
            return


def _cpu_seconds(pid: int) -> float:
    process = psutil.Process(pid)
    total = 0.0
    for member in [process, *process.children(recursive=True)]:
        with suppress(psutil.NoSuchProcess):
            times = member.cpu_times()
            total += times.user + times.system
    return total
