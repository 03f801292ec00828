"""Content negotiation: refuses wrong methods (405), and an Accept that no response satisfies (406).

Methods and media types come from the OpenAPI document, so every documented endpoint is negotiated.
"""

import re
from collections.abc import Callable
from functools import cached_property, lru_cache
from typing import Any, NamedTuple

from fastapi import APIRouter, FastAPI
from starlette.routing import compile_path
from starlette.types import ASGIApp, Receive, Scope, Send

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
    """ASGI middleware: refuses a wrong method, or an Accept that no response satisfies."""

    def __init__(self, app: ASGIApp, endpoints: Endpoints) -> None:
        self.app = app
        self._endpoints = endpoints

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        refusal = self._refusal(scope) if scope["type"] == "http" else None
        app = self.app if refusal is None else problem_response(refusal)
        await app(scope, receive, send)

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
