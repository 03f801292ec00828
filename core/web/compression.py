"""Compresses JSON responses, by gzip or zstd, for clients that ask for it."""

import zlib
from functools import lru_cache
from http import HTTPStatus

import anyio.to_thread
from backports import zstd
from starlette.types import ASGIApp, Message, Receive, Scope, Send

# Smaller bodies fit into one packet anyway.
LEAST_BYTES = 1000
# Larger bodies are compressed in a thread: the event loop would stand still for more than a millisecond.
_THREAD_BYTES = 64 * 1024
_GZIP_LEVEL = 4
_ZSTD_LEVEL = 3
_GZIP_WINDOW = 31  # zlib's way to ask for gzip
_CODINGS = ("zstd", "gzip")  # the better one first
# Of compressed bodies; a page is a tenth as large as it was.
_CACHE_BYTES = 16 * 2**20

Headers = list[tuple[bytes, bytes]]


class Compression:
    """ASGI middleware: compresses JSON bodies that are sent in one piece.

    A compressed response has a weak ETag, since its bytes are others than those of the strong one; If-None-Match
    takes both. Compressed bodies are cached by their ETag: to compress a page of 100 texts takes ten times as long
    as to send it again (`make bench ONLY=serving`: "newest page, repeated").
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self._cache: dict[tuple[bytes, str], bytes] = {}
        self._cached_bytes = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            send = _Sending(self, scope["headers"], send)
        await self.app(scope, receive, send)

    async def compress(self, etag: bytes, body: bytes, coding: str) -> bytes:
        """Return a body compressed, from the cache if it has an ETag and was compressed before."""
        compressed = self._cache.get((etag, coding)) if etag else None
        if compressed is None:
            if len(body) > _THREAD_BYTES:
                compressed = await anyio.to_thread.run_sync(_encode, body, coding)
            else:
                compressed = _encode(body, coding)
            if etag:
                self._keep(etag, coding, compressed)
        return compressed

    def _keep(self, etag: bytes, coding: str, compressed: bytes) -> None:
        """Cache a body; a full cache is emptied first: most of it belongs to earlier versions."""
        if self._cached_bytes + len(compressed) > _CACHE_BYTES:
            self._cache.clear()
            self._cached_bytes = 0
        if len(compressed) <= _CACHE_BYTES and (etag, coding) not in self._cache:
            self._cache[etag, coding] = compressed
            self._cached_bytes += len(compressed)


class _Sending:
    """Sends one response: holds its head until the body is there, which decides about both."""

    def __init__(self, compression: Compression, asked: Headers, send: Send) -> None:
        self._compression = compression
        self._coding = choose_coding(_joined(asked, b"accept-encoding"))
        self._held_etags = _joined(asked, b"if-none-match")
        self._send = send
        self._head: Message | None = None

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            if _is_json(message["headers"]):
                self._head = message
                return
            if message["status"] == HTTPStatus.NOT_MODIFIED:
                message["headers"] = _as_held(message["headers"], self._held_etags)
        elif self._head is not None:
            head, self._head = self._head, None
            message = await self._encode(head, message)
            await self._send(head)
        await self._send(message)

    async def _encode(self, head: Message, message: Message) -> Message:
        """Return the body's message as the client wants it, and change the head accordingly."""
        headers = _varying(head["headers"])
        body = message.get("body", b"")
        if self._coding and len(body) >= LEAST_BYTES and not message.get("more_body"):
            etag = _joined(headers, b"etag")
            body = await self._compression.compress(etag, body, self._coding)
            changed = {b"content-length": str(len(body)).encode(), b"etag": _weak(etag)}
            headers = [(name, changed.get(name, value)) for name, value in headers]
            headers.append((b"content-encoding", self._coding.encode()))
        head["headers"] = headers
        return {**message, "body": body}


def _joined(headers: Headers, wanted: bytes) -> bytes:
    return b",".join([value for name, value in headers if name == wanted])


@lru_cache(256)
def choose_coding(accept_encoding: bytes) -> str:
    """Return which of our codings the client prefers; "" for none, as where it cannot be read."""
    qualities: dict[str, float] = {}
    for part in accept_encoding.decode("latin-1").lower().split(","):
        name, _, parameter = part.partition(";")
        try:
            quality = float(parameter.partition("=")[2]) if parameter.strip() else 1.0
        except ValueError:
            quality = 0.0
        qualities[name.strip()] = quality
    anything = qualities.get("*", 0.0)
    best = max(_CODINGS, key=lambda coding: qualities.get(coding, anything))
    quality = qualities.get(best, anything)
    return best if quality > 0 and quality >= qualities.get("identity", 0.0) else ""


def _encode(body: bytes, coding: str) -> bytes:
    if coding == "zstd":
        return zstd.compress(body, _ZSTD_LEVEL)
    return zlib.compress(body, _GZIP_LEVEL, _GZIP_WINDOW)


def _is_json(headers: Headers) -> bool:
    """Whether it is JSON that nothing else has encoded."""
    kind = b""
    for name, value in headers:
        if name == b"content-type":
            kind = value
        elif name == b"content-encoding":
            return False
    return kind.startswith((b"application/json", b"application/problem+json"))


def _varying(headers: Headers) -> Headers:
    """Say that the body depends on Accept-Encoding."""
    vary = [value for name, value in headers if name == b"vary"]
    others = [(name, value) for name, value in headers if name != b"vary"]
    return [*others, (b"vary", b", ".join([*vary, b"Accept-Encoding"]))]


def _as_held(headers: Headers, held: bytes) -> Headers:
    """Name the ETag of a 304 as the client does: a weak one is that of a compressed body."""
    return [(name, _weak(value) if name == b"etag" and _weak(value) in held else value) for name, value in headers]


def _weak(etag: bytes) -> bytes:
    return etag if not etag or etag.startswith(b"W/") else b"W/" + etag
