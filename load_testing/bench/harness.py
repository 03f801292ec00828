"""The harness of `make bench`: starts servers, loads them, measures cases in turns, and prints medians.

A *sample* holds the figures of one measurement by name. A *case* is a function that measures once. The load
generator uses plain sockets, because it must cost less than the server.
"""

import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from rich import box
from rich.table import Table

from load_testing.targets import holds_within, is_ok, sum_over_family
from local_stack.ports import reserved_ports

ROUNDS = 3
CLIENTS = 16
_MEMORY_INTERVAL_SECONDS = 0.02
_START_SECONDS = 300
_WARM_SECONDS = 0.3
_LOAD_SECONDS = 2.0

Sample = dict[str, float]


class FigureColumn(NamedTuple):
    """A column: its title, its figure in the samples, the format, and how the rounds become one value."""

    title: str
    figure: str
    form: str = ",.0f"
    combine: Callable[[Iterable[float]], float] = statistics.median


LATENCIES = (FigureColumn("p50 ms", "p50", ".2f"), FigureColumn("p99 ms", "p99", ".2f"))


class FigureTable(Table):
    """A table whose lines start with the names of a case; `columns` show figures of its samples."""

    def __init__(self, title: str, names: Sequence[str], columns: Sequence[FigureColumn]) -> None:
        """Make a table without lines. On a narrow terminal names wrap; figures are never cut."""
        super().__init__(*names, title=title, box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
        for column in columns:
            self.add_column(textwrap.fill(column.title, 9), justify="right", no_wrap=True)
        self._figures = columns

    def add(self, names: Sequence[str], samples: Sequence[Sample]) -> None:
        """Add a line; a figure that no sample has is shown as "-"."""
        cells = []
        for column in self._figures:
            values = [sample[column.figure] for sample in samples if column.figure in sample]
            cells.append(format(column.combine(values), column.form) if values else "-")
        self.add_row(*names, *cells)

    def add_all(self, measured: Mapping[str, Sequence[Sample]], *names: str) -> None:
        """Add a line for each case, with `names` before the name of the case, and end the section."""
        for name, samples in measured.items():
            self.add((*names, name), samples)
        self.add_section()


def in_turns(cases: Mapping[str, Callable[[], Sample]], rounds: int = ROUNDS) -> dict[str, list[Sample]]:
    """Measure all cases in each round, so that a machine that changes its speed changes it for all of them."""
    measured: dict[str, list[Sample]] = {name: [] for name in cases}
    for _ in range(rounds):
        for name, case in cases.items():
            measured[name].append(case())
    return measured


def compare(
    measured: Mapping[str, Sequence[Sample]], reference: str, ratio: Callable[[Sample, Sample], float]
) -> None:
    """Add a figure `ratio` to each sample, from the reference's sample of the same round and the sample itself."""
    for samples in measured.values():
        for base, sample in zip(measured[reference], samples, strict=True):
            sample["ratio"] = ratio(base, sample)


def cost_of(action: Callable[[], object], pid: int | None = None) -> Sample:
    """Run an action; return `seconds` and the `core_seconds` of a process with its children.

    Without `pid` the core seconds are those of this process alone.
    """
    used = processor_seconds(pid) if pid else time.process_time()
    started = time.perf_counter()
    action()
    seconds = time.perf_counter() - started
    return {
        "seconds": seconds,
        "core_seconds": (processor_seconds(pid) if pid else time.process_time()) - used,
    }


def processor_seconds(pid: int) -> float:
    """Return the processor time so far of a process and its children."""
    return sum_over_family(pid, lambda process: sum(process.cpu_times()[:2]))


@contextmanager
def peak_memory(pid: int) -> Iterator[Sample]:
    """Measure the memory of a process every 20 ms until the block ends; the figure `peak` is in MB.

    It is the resident memory of the process and its children. Shared pages count for each of them.
    """
    sample, done = {"peak": 0.0}, threading.Event()

    def look() -> None:
        while not done.wait(_MEMORY_INTERVAL_SECONDS):
            resident = sum_over_family(pid, lambda process: process.memory_info().rss)
            sample["peak"] = max(sample["peak"], resident / 1e6)

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield sample
    finally:
        done.set()
        thread.join()


def folder_bytes(folder: Path, pattern: str = "*") -> int:
    """Return the size of the files below a folder that match a pattern."""
    return sum(file.stat().st_size for file in folder.rglob(pattern) if file.is_file())


class Server(NamedTuple):
    """A running server."""

    url: str
    pid: int


def api_environment(database_url: str) -> dict[str, str]:
    """Return the settings with which an API is measured."""
    return {"DATABASE_URL": database_url, "REQUIRE_API_KEY": "false", "LOG_LEVEL": "WARNING"}


@contextmanager
def running(command: list[str], is_ready: Callable[[], bool], **options: Any) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program until the block ends, which starts when the program is ready; `options` are those of Popen.

    Raises:
        RuntimeError: the program ended, or was not ready in time; the message has the end of its output.
    """
    with tempfile.TemporaryFile() as log:
        process: subprocess.Popen[bytes] = subprocess.Popen(command, stdout=log, stderr=log, **options)  # noqa: S603
        try:
            holds_within(_START_SECONDS, lambda: process.poll() is not None or is_ready())
            if process.poll() is not None or not is_ready():
                log.seek(0)
                raise RuntimeError(f"{' '.join(command)} did not start: {log.read()[-1000:].decode()}")
            yield process
        finally:
            process.terminate()
            process.wait()


@contextmanager
def running_server(command: list[str], env: dict[str, str], path: str) -> Iterator[Server]:
    """Run a server, with a free port for `{port}` in its arguments, from its first 2xx to `path` on.

    Raises:
        RuntimeError: the program ended, or did not answer in time.
    """
    with reserved_ports(1) as [port]:
        url = f"http://127.0.0.1:{port}"
        filled = [argument.format(port=port) for argument in command]
        ports = {"INGESTION_PORT": str(port), "SERVING_PORT": str(port)}
        with running(filled, lambda: is_ok(f"{url}{path}"), env=os.environ | env | ports) as process:
            yield Server(url, process.pid)


@contextmanager
def serving(arguments: list[str], env: dict[str, str], path: str = "/openapi.json") -> Iterator[Server]:
    """Run `python -m ARGUMENTS` as a server until the block ends."""
    with running_server([sys.executable, "-m", *arguments], env, path) as server:
        yield server


def post_all(url: str, bodies: Iterable[bytes], clients: int) -> Sample:
    """POST every body as JSON over `clients` connections that each wait for their response.

    Returns `requests`, `seconds`, `rate` (per second), and `p50` and `p99` in milliseconds.

    Raises:
        RuntimeError: a response is not 201.
    """
    target = urlsplit(url)
    head = f"POST {target.path} HTTP/1.1\r\nHost: {target.hostname}\r\nContent-Type: application/json\r\n"
    head_bytes = f"{head}Content-Length: ".encode()
    requests = (b"%b%d\r\n\r\n%b" % (head_bytes, len(body), body) for body in bodies)
    return asyncio.run(_send_all(url, requests, clients, 201))


def get_all(url: str, paths: Iterable[str], clients: int, status: int = 200, headers: str = "") -> Sample:
    """GET every path, with its query, as `post_all` does; each line of `headers` ends with CR LF.

    Raises:
        RuntimeError: a response has another status.
    """
    host = urlsplit(url).hostname
    requests = (f"GET {path} HTTP/1.1\r\nHost: {host}\r\n{headers}\r\n".encode() for path in paths)
    return asyncio.run(_send_all(url, requests, clients, status))


def measure_gets(
    server: Server, paths: Iterable[str], status: int = 200, headers: str = "", clients: int = CLIENTS
) -> Sample:
    """GET the paths for two seconds, after a warm-up; adds the server's `cores` and responses `per_core`."""
    waiting = iter(paths)
    get_all(server.url, _for_seconds(waiting, _WARM_SECONDS), clients, status, headers)
    before = processor_seconds(server.pid)
    sample = get_all(server.url, _for_seconds(waiting, _LOAD_SECONDS), clients, status, headers)
    used = processor_seconds(server.pid) - before
    return sample | {"cores": used / sample["seconds"], "per_core": sample["requests"] / max(used, 0.01)}


def _for_seconds(paths: Iterator[str], seconds: float) -> Iterator[str]:
    until = time.monotonic() + seconds
    for path in paths:
        yield path
        if time.monotonic() > until:
            return


async def _send_all(url: str, requests: Iterable[bytes], clients: int, status: int) -> Sample:
    target = urlsplit(url)
    host, port = target.hostname or "", target.port or 80
    latencies: list[float] = []
    waiting = iter(requests)
    started = time.perf_counter()
    await asyncio.gather(*(_client(host, port, waiting, status, latencies) for _ in range(clients)))
    seconds = time.perf_counter() - started
    ordered, number = sorted(latencies), len(latencies)
    quantiles = {name: ordered[int(share * number)] * 1000 for name, share in (("p50", 0.5), ("p99", 0.99))}
    return {"requests": number, "seconds": seconds, "rate": number / seconds, **quantiles}


async def _client(host: str, port: int, requests: Iterator[bytes], status: int, latencies: list[float]) -> None:
    reader, writer = await asyncio.open_connection(host, port, limit=2**20)
    expected = f"HTTP/1.1 {status}".encode()
    for request in requests:
        sent = time.perf_counter()
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        if not head.startswith(expected):
            raise RuntimeError(f"not {status}: {head.splitlines()[0].decode()}")
        await _skip_body(reader, head.lower())
        latencies.append(time.perf_counter() - sent)
    writer.close()


async def _skip_body(reader: asyncio.StreamReader, head: bytes) -> None:
    if b"transfer-encoding: chunked" in head:
        while length := int(await reader.readuntil(b"\r\n"), 16):
            await reader.readexactly(length + 2)
        await reader.readexactly(2)
    elif b"content-length:" in head:
        start = head.index(b"content-length:") + len(b"content-length:")
        await reader.readexactly(int(head[start : head.index(b"\r\n", start)]))
