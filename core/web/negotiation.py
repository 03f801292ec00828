"""Content negotiation: refuses wrong methods (405) and an Accept that no response satisfies (406); compresses.

Methods and media types come from the OpenAPI document, so every documented endpoint is negotiated.
"""

import re
import zlib
from collections.abc import Callable, Mapping
from functools import cached_property, lru_cache
from http import HTTPStatus
from typing import Any, NamedTuple

import anyio.to_thread
from backports import zstd
from fastapi import APIRouter, FastAPI
from fastapi.routing import APIRoute
from starlette.routing import compile_path
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from core.web.problems import MethodNotAllowed, NotAcceptable, Problem, problem_response

# Pages that the OpenAPI document does not list.
_OWN_PAGES = {"/docs": "text/html", "/redoc": "text/html", "/openapi.json": "application/json"}

# Browsers send a few hundred bytes. The cache has a thousand entries.
_ACCEPT_MAX = 4096
_NAME = r"[!#$%&'*+.^_`|~0-9a-z-]+"
_MEDIA_RANGE = re.compile(rf"{_NAME}/{_NAME}|\*")
_QUALITY = re.compile(r"q=(0(?:\.[0-9]*)?|1(?:\.0*)?)")
# Text up to `,`, `;` or the end; within quotes both are text. Possessive, so that it takes linear time.
_PART = re.compile(r'((?:[^",;]++|"(?:[^"\\]|\\.)*+"?)*+)([,;]?)', re.DOTALL)


class Router(APIRouter):
    """A router whose GET endpoints also respond to HEAD, undocumented: the server omits the body."""

    def add_api_route(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        """Add an endpoint."""
        super().add_api_route(path, endpoint, **options)
        methods = options.get("methods") or ["GET"]
        if "GET" in methods:
            hidden = {"methods": ["HEAD"], "include_in_schema": False}
            super().add_api_route(path, endpoint, **options | hidden)


MediaTypes = dict[str, tuple[str, ...]]  # of successful answers, by method


class Endpoints:
    """The endpoints of an application in its OpenAPI document."""

    def __init__(self, app: FastAPI) -> None:
        self._app = app

    def find(self, path: str) -> MediaTypes | None:
        """Return the media types of a path by method; HEAD is included with GET."""
        fixed, templates = self._all
        if path in fixed:
            return fixed[path]
        return next((media_types for template, media_types in templates if template.match(path)), None)

    @cached_property
    def _all(self) -> tuple[dict[str, MediaTypes], list[tuple[re.Pattern[str], MediaTypes]]]:
        media_types = {path: _media_types(o) for path, o in self._app.openapi()["paths"].items()}
        media_types |= {path: {"GET": (kind,), "HEAD": (kind,)} for path, kind in _OWN_PAGES.items()}
        templates = [(compile_path(path)[0], kinds) for path, kinds in media_types.items() if "{" in path]
        return media_types, templates


def _media_types(operations: dict[str, dict[str, Any]]) -> MediaTypes:
    by_method = {method.upper(): _sent(operation["responses"]) for method, operation in operations.items()}
    return by_method | {"HEAD": by_method["GET"]} if "GET" in by_method else by_method


def _sent(responses: dict[str, dict[str, Any]]) -> tuple[str, ...]:
    kinds = [kind for status, r in responses.items() if status.startswith("2") for kind in r.get("content", {})]
    return tuple(dict.fromkeys(kinds))


class Negotiation:
    """ASGI middleware: refuses a wrong method, or an Accept that no response satisfies.

    It calls `direct` routes (by method and path) itself, without the framework's routing.
    """

    def __init__(
        self, app: ASGIApp, endpoints: Endpoints, direct: Mapping[tuple[str, str], APIRoute] | None = None
    ) -> None:
        self.app = app
        self._endpoints = endpoints
        self._direct = direct or {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        app = self._choose(scope) if scope["type"] == "http" else self.app
        await app(scope, receive, send)

    def _choose(self, scope: Scope) -> ASGIApp:
        refusal = self._refusal(scope)
        if refusal is not None:
            return problem_response(refusal)
        route = self._direct.get((scope["method"], scope["path"]))
        if route is None:
            return self.app
        scope["route"] = route
        return route.app

    def _refusal(self, scope: Scope) -> Problem | None:
        found = self._endpoints.find(scope["path"])
        if found is None:
            return None  # 404, or the files of the documentation
        if scope["method"] not in found:
            # Starlette's own 405 lists the methods of one route only, and confuses fixed paths with templates.
            return MethodNotAllowed(sorted(found))
        sent, accept = found[scope["method"]], _accept(scope)
        if sent and accept and not is_acceptable(sent, accept):
            return NotAcceptable(f"Accept rules out what is sent here: {' or '.join(sent)}.")
        return None


def _accept(scope: Scope) -> str:
    """Return the header, joined if it was sent several times; empty if any type is accepted."""
    parts = [value for name, value in scope["headers"] if name == b"accept"]
    return "" if not parts or parts == [b"*/*"] else b",".join(parts).decode("latin-1")


def is_acceptable(media_types: tuple[str, ...], accept: str) -> bool:
    """Whether one of the media types is acceptable; an unreadable or overlong Accept is disregarded (RFC 9110)."""
    return bool(choose_media_type(media_types, accept))


def choose_media_type(media_types: tuple[str, ...], accept: str) -> str:
    """Return the media type that the client prefers: without a preference the first one, "" if none will do."""
    return media_types[0] if len(accept) > _ACCEPT_MAX else _choose(media_types, accept.lower())


@lru_cache(1024)
def _choose(media_types: tuple[str, ...], accept: str) -> str:
    ranges = _read_accept(accept)
    if not ranges:
        return media_types[0]
    ranked = [(*_rank(media_type, ranges), media_type) for media_type in media_types]
    best = max(ranked, key=lambda one: one[:2])  # the first of equally good ones
    return best[2] if best[0] else ""


class _MediaRange(NamedTuple):
    name: str  # type/subtype, type/*, or */*
    has_parameters: bool
    quality: float


def _read_accept(accept: str) -> list[_MediaRange]:
    """Parse an Accept in lower case; return no ranges if one of them is malformed."""
    ranges: list[_MediaRange] = []
    parts: list[str] = []
    for found in _PART.finditer(accept):
        parts.append(found[1].strip())
        if found[2] == ";":
            continue
        name, *parameters = parts
        parts = []
        if not name and not any(parameters):
            continue
        if not _MEDIA_RANGE.fullmatch(name):
            return []
        others = [one for one in parameters if one and not one.startswith("q=")]
        quality = next((q[1] for one in parameters if (q := _QUALITY.fullmatch(one))), "1")
        ranges.append(_MediaRange("*/*" if name == "*" else name, bool(others), float(quality)))
    return ranges


def _rank(media_type: str, ranges: list[_MediaRange]) -> tuple[float, int]:
    """Return the quality of a media type by the most specific matching range, and how specific that range is.

    Our media types have no parameters, so a range with parameters counts only if no other one matches.
    """
    by_specificity = {"*/*": 0, media_type.partition("/")[0] + "/*": 2, media_type: 4}
    fitting = [
        (by_specificity[one.name] + (not one.has_parameters), one.quality)
        for one in ranges
        if one.name in by_specificity
    ]
    if not fitting:
        return 0.0, 0
    specificity, quality = max(fitting)
    return quality, specificity


# Smaller bodies fit into one packet anyway.
LEAST_BYTES = 1000
# Larger bodies are compressed in a thread: they would block the event loop for more than a millisecond.
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
        """Return the body's message in the client's coding, and change the head accordingly."""
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
