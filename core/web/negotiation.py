"""Content negotiation: refuses wrong methods (405) and an Accept that no response satisfies (406); compresses.

Methods and media types come from the OpenAPI document, so every documented endpoint is negotiated.
"""

import re
import zlib
from collections.abc import Callable, Mapping
from functools import cached_property, lru_cache
from http import HTTPStatus
from typing import Any, NamedTuple

from anyio import to_thread
from backports import zstd
from cachetools import LRUCache
from fastapi import APIRouter, FastAPI
from fastapi.routing import APIRoute
from starlette.datastructures import Headers, MutableHeaders
from starlette.routing import compile_path
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from core.web.problems import MethodNotAllowed, NotAcceptable, Problem, problem_response

# Pages that the OpenAPI document does not list.
_OWN_PAGES = {"/docs": "text/html", "/redoc": "text/html", "/openapi.json": "application/json"}

# Browsers send a few hundred bytes. The cache has a thousand entries.
_ACCEPT_MAX = 4096
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9a-z-]+")
_MEDIA_RANGE = re.compile(rf"{_NAME.pattern}/{_NAME.pattern}|\*")
_QUALITY = re.compile(r"q=(0(?:\.[0-9]*)?|1(?:\.0*)?)")
# What is quoted has no separators. Possessive, so that it takes linear time.
_QUOTED = re.compile(r'"(?:[^"\\]|\\.)*+"?', re.DOTALL)


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


def _media_types(operations: dict[str, dict[str, Any]]) -> MediaTypes:
    by_method = {method.upper(): _sent(operation["responses"]) for method, operation in operations.items()}
    return by_method | {"HEAD": by_method["GET"]} if "GET" in by_method else by_method


def _sent(responses: dict[str, dict[str, Any]]) -> tuple[str, ...]:
    kinds = [kind for status, r in responses.items() if status.startswith("2") for kind in r.get("content", {})]
    return tuple(dict.fromkeys(kinds))


class Negotiation:
    """ASGI middleware: refuses a wrong method, or an Accept that no response satisfies, as `api` documents them.

    It calls `direct` routes (by method and path) itself, without the framework's routing.
    """

    def __init__(self, app: ASGIApp, api: FastAPI, direct: Mapping[tuple[str, str], APIRoute]) -> None:
        self.app = app
        self._api = api
        self._direct = direct

    @cached_property
    def _endpoints(self) -> tuple[dict[str, MediaTypes], list[tuple[re.Pattern[str], MediaTypes]]]:
        media_types = {path: _media_types(o) for path, o in self._api.openapi()["paths"].items()}
        media_types |= {path: {"GET": (kind,), "HEAD": (kind,)} for path, kind in _OWN_PAGES.items()}
        templates = [(compile_path(path)[0], kinds) for path, kinds in media_types.items() if "{" in path]
        return media_types, templates

    def _find(self, path: str) -> MediaTypes | None:
        """Return the media types of a path by method; HEAD is included with GET."""
        fixed, templates = self._endpoints
        if path in fixed:
            return fixed[path]
        return next((media_types for template, media_types in templates if template.match(path)), None)

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
        found = self._find(scope["path"])
        if found is None:
            return None  # 404, or the files of the documentation
        if scope["method"] not in found:
            # Starlette's own 405 lists the methods of one route only, and confuses fixed paths with templates.
            return MethodNotAllowed(sorted(found))
        sent, accept = found[scope["method"]], _accept(scope)
        if sent and accept and not choose_media_type(sent, accept):
            return NotAcceptable(f"Accept rules out what is sent here: {' or '.join(sent)}.")
        return None


def _accept(scope: Scope) -> str:
    """Return the header, joined if it was sent several times; empty if any type is accepted."""
    parts = [value for name, value in scope["headers"] if name == b"accept"]
    return "" if not parts or parts == [b"*/*"] else b",".join(parts).decode("latin-1")


def choose_media_type(media_types: tuple[str, ...], accept: str) -> str:
    """Return the media type that the client prefers: without a preference the first one, "" if none will do.

    An unreadable or overlong Accept is disregarded (RFC 9110).
    """
    return media_types[0] if len(accept) > _ACCEPT_MAX else _choose(media_types, accept.lower())


class _Element(NamedTuple):
    """An element of Accept or Accept-Encoding."""

    name: str
    has_parameters: bool
    quality: float


def _read_elements(header: str, name_pattern: re.Pattern[str]) -> list[_Element]:
    """Parse a header in lower case; return nothing if an element is malformed."""
    elements = []
    for element in _QUOTED.sub("", header).split(","):
        name, *parameters = [part.strip() for part in element.split(";")]
        if not name and not any(parameters):
            continue
        quality = _QUALITY.fullmatch(next((one for one in parameters if one.startswith("q=")), "q=1"))
        if not name_pattern.fullmatch(name) or quality is None:
            return []
        has_parameters = any(one and not one.startswith("q=") for one in parameters)
        elements.append(_Element(name, has_parameters, float(quality[1])))
    return elements


@lru_cache(1024)
def _choose(media_types: tuple[str, ...], accept: str) -> str:
    ranges = _read_elements(accept, _MEDIA_RANGE)
    if not ranges:
        return media_types[0]
    ranked = [(*_rank(media_type, ranges), media_type) for media_type in media_types]
    best = max(ranked, key=lambda one: one[:2])  # the first of equally good ones
    return best[2] if best[0] else ""


def _rank(media_type: str, ranges: list[_Element]) -> tuple[float, int]:
    """Return the quality of a media type by the most specific matching range, and how specific that range is.

    Our media types have no parameters, so a range with parameters counts only if no other one matches.
    """
    main = media_type.partition("/")[0]
    by_specificity = {"*": 0, "*/*": 0, f"{main}/*": 2, media_type: 4}
    fitting = [
        (by_specificity[one.name] + (not one.has_parameters), one.quality)
        for one in ranges
        if one.name in by_specificity
    ]
    specificity, quality = max(fitting, default=(0, 0.0))
    return quality, specificity


@lru_cache(256)
def choose_coding(accept_encoding: str) -> str:
    """Return which of our codings the client prefers; "" for none, also if the header cannot be read."""
    elements = _read_elements(accept_encoding[:_ACCEPT_MAX].lower(), _NAME)
    qualities = {one.name: one.quality for one in elements}
    anything = qualities.get("*", 0.0)
    best = max(_CODINGS, key=lambda coding: qualities.get(coding, anything))
    quality = qualities.get(best, anything)
    return best if quality > 0 and quality >= qualities.get("identity", 0.0) else ""


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


class Compression:
    """ASGI middleware: compresses JSON bodies that are sent in one piece.

    A compressed response has a weak ETag, since its bytes are others than those of the strong one; If-None-Match
    takes both. Compressed bodies are cached by their ETag: to compress a page of 100 texts takes ten times as long
    as to send it again (`make bench ONLY=serving`: "newest page, repeated").
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self._cache: LRUCache[tuple[str, str], bytes] = LRUCache(_CACHE_BYTES, getsizeof=len)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        asked = Headers(scope=scope)
        start: Message | None = None  # held until the body is there, which decides about both

        async def send_compressed(message: Message) -> None:
            nonlocal start
            if message["type"] == "http.response.start":
                headers = MutableHeaders(raw=list(message["headers"]))
                message["headers"] = headers.raw
                if _is_json(headers):
                    start = message
                    return
                if message["status"] == HTTPStatus.NOT_MODIFIED:
                    _name_as_held(headers, ",".join(asked.getlist("if-none-match")))
            elif start is not None:
                head, start = start, None
                coding = choose_coding(",".join(asked.getlist("accept-encoding")))
                message = await self._compress(MutableHeaders(raw=head["headers"]), message, coding)
                await send(head)
            await send(message)

        await self.app(scope, receive, send_compressed)

    async def _compress(self, headers: MutableHeaders, message: Message, coding: str) -> Message:
        """Return the body's message in a coding, and change the headers accordingly."""
        headers.add_vary_header("Accept-Encoding")
        body = message.get("body", b"")
        if not coding or len(body) < LEAST_BYTES or message.get("more_body"):
            return message
        etag = headers.get("etag", "")
        compressed = self._cache.get((etag, coding)) if etag else None
        if compressed is None:
            is_long = len(body) > _THREAD_BYTES
            compressed = await to_thread.run_sync(_encode, body, coding) if is_long else _encode(body, coding)
            if etag and len(compressed) <= _CACHE_BYTES:
                self._cache[etag, coding] = compressed
        headers["content-length"] = str(len(compressed))
        headers["content-encoding"] = coding
        if etag:
            headers["etag"] = _weak(etag)
        return {**message, "body": compressed}


def _encode(body: bytes, coding: str) -> bytes:
    if coding == "zstd":
        return zstd.compress(body, _ZSTD_LEVEL)
    return zlib.compress(body, _GZIP_LEVEL, _GZIP_WINDOW)


def _is_json(headers: Headers) -> bool:
    """Whether it is JSON that nothing else has encoded."""
    is_json = headers.get("content-type", "").startswith(("application/json", "application/problem+json"))
    return is_json and "content-encoding" not in headers


def _name_as_held(headers: MutableHeaders, held: str) -> None:
    """Name the ETag of a 304 as the client does: a weak one is that of a compressed body."""
    weak = _weak(headers.get("etag", ""))
    if weak and weak in held:
        headers["etag"] = weak


def _weak(etag: str) -> str:
    return etag if not etag or etag.startswith("W/") else f"W/{etag}"
