"""A closed load of POSTs over plain sockets: the generator must cost less than what it measures."""

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
    return asyncio.run(_post_all(url, bodies, clients))


async def _post_all(url: str, bodies: Iterable[bytes], clients: int) -> Load:
    target = urlsplit(url)
    host, port = target.hostname or "", target.port or 80
    latencies: list[float] = []
    waiting = iter(bodies)
    started = time.perf_counter()
    await asyncio.gather(*(_client(host, port, target.path, waiting, latencies) for _ in range(clients)))
    return Load(time.perf_counter() - started, latencies)


async def _client(host: str, port: int, path: str, bodies: Iterator[bytes], latencies: list[float]) -> None:
    reader, writer = await asyncio.open_connection(host, port)
    head = f"POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\nContent-Length: ".encode()
    for body in bodies:
        sent = time.perf_counter()
        writer.write(b"%b%d\r\n\r\n%b" % (head, len(body), body))
        answer = await reader.readuntil(b"\r\n\r\n")
        if not answer.startswith(b"HTTP/1.1 201"):
            raise RuntimeError(f"not stored: {answer.splitlines()[0].decode()}")
        await reader.readexactly(_content_length(answer))
        latencies.append(time.perf_counter() - sent)
    writer.close()


def _content_length(head: bytes) -> int:
    start = head.lower().index(b"content-length:") + len(b"content-length:")
    return int(head[start : head.index(b"\r\n", start)])
