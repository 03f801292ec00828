"""A closed load over plain sockets: the generator must cost less than what it measures."""

import asyncio
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from urllib.parse import urlsplit


@dataclass(frozen=True, slots=True)
class Load:
    """What a load has measured."""

    seconds: float
    latencies_seconds: list[float]

    @property
    def requests_per_second(self) -> float:
        """Answers a second over all connections."""
        return len(self.latencies_seconds) / self.seconds

    def quantile_ms(self, share: float) -> float:
        """The latency in milliseconds that `share` of the requests did not exceed."""
        ordered = sorted(self.latencies_seconds)
        return ordered[min(int(share * len(ordered)), len(ordered) - 1)] * 1000


def post_all(url: str, bodies: Iterable[bytes], clients: int) -> Load:
    """POST every body as JSON over `clients` connections that each wait for their answer.

    Raises:
        RuntimeError: an answer is not 201.
    """
    target = urlsplit(url)
    head = f"POST {target.path} HTTP/1.1\r\nHost: {target.hostname}\r\nContent-Type: application/json\r\n"
    head_bytes = f"{head}Content-Length: ".encode()
    requests = (b"%b%d\r\n\r\n%b" % (head_bytes, len(body), body) for body in bodies)
    return asyncio.run(_send_all(url, requests, clients, 201))


def get_all(url: str, paths: Iterable[str], clients: int, status: int = 200, headers: str = "") -> Load:
    """GET every path, with its query, over `clients` connections; each line of `headers` ends with CR LF.

    Raises:
        RuntimeError: an answer has another status.
    """
    host = urlsplit(url).hostname
    requests = (f"GET {path} HTTP/1.1\r\nHost: {host}\r\n{headers}\r\n".encode() for path in paths)
    return asyncio.run(_send_all(url, requests, clients, status))


async def _send_all(url: str, requests: Iterable[bytes], clients: int, status: int) -> Load:
    target = urlsplit(url)
    host, port = target.hostname or "", target.port or 80
    latencies: list[float] = []
    waiting = iter(requests)
    started = time.perf_counter()
    await asyncio.gather(*(_client(host, port, waiting, status, latencies) for _ in range(clients)))
    return Load(time.perf_counter() - started, latencies)


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
        await reader.readexactly(_content_length(head))


def _content_length(head: bytes) -> int:
    start = head.index(b"content-length:") + len(b"content-length:")
    return int(head[start : head.index(b"\r\n", start)])
