"""Starts servers, and loads them over plain sockets: the load generator must cost less than the server."""

import asyncio
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from load_testing.bench.harness import Sample, processor_seconds
from load_testing.targets import is_ok

CLIENTS = 16
_START_SECONDS = 300
_WARM_SECONDS = 0.3
_LOAD_SECONDS = 2.0


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
            deadline = time.monotonic() + _START_SECONDS
            while not is_ready():
                if process.poll() is not None or time.monotonic() > deadline:
                    log.seek(0)
                    raise RuntimeError(f"{' '.join(command)} did not start: {log.read()[-1000:].decode()}")
                time.sleep(0.1)
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
    port = free_port()
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


def free_port() -> int:
    """Return a port that no program listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
    return port


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


def measure_gets(server: Server, paths: Iterable[str], status: int = 200, headers: str = "") -> Sample:
    """GET the paths for two seconds, after a warm-up; adds the server's `cores` and responses `per_core`."""
    waiting = iter(paths)
    get_all(server.url, _for_seconds(waiting, _WARM_SECONDS), CLIENTS, status, headers)
    before = processor_seconds(server.pid)
    sample = get_all(server.url, _for_seconds(waiting, _LOAD_SECONDS), CLIENTS, status, headers)
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
