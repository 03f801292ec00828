"""What an endpoint sends, and which methods it takes, held against what a client asks for.

Both are read from the OpenAPI document, so that an endpoint which is documented is also negotiated.
"""

import re
from collections.abc import Callable
from functools import cached_property, lru_cache
from typing import Any, NamedTuple

import mimeparse
from fastapi import APIRouter, FastAPI
from starlette.routing import compile_path
from starlette.types import ASGIApp, Receive, Scope, Send

from core.problems import NotAcceptable
from core.responses import problem_response

# Pages about the API itself, which its document does not list.
_OWN_PAGES = {"/docs": "text/html", "/redoc": "text/html", "/openapi.json": "application/json"}


class Router(APIRouter):
    """A router whose GET endpoints answer HEAD too, undocumented: the server leaves out the body."""

    def add_api_route(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        """Add an endpoint."""
        super().add_api_route(path, endpoint, **options)
        methods = options.get("methods") or ["GET"]
        if "GET" in methods:
            hidden = {"methods": ["HEAD"], "include_in_schema": False}
            super().add_api_route(path, endpoint, **options | hidden)


class _Endpoint(NamedTuple):
    path: re.Pattern[str]
    media_types: dict[str, tuple[str, ...]]  # of successful answers, by method


class Endpoints:
    """The endpoints of an application, as its OpenAPI document lists them."""

    def __init__(self, app: FastAPI) -> None:
        self._app = app

    @cached_property
    def _all(self) -> list[_Endpoint]:
        documented = [
            _Endpoint(
                compile_path(path)[0],
                {method.upper(): _sent(operation["responses"]) for method, operation in operations.items()},
            )
            for path, operations in self._app.openapi()["paths"].items()
        ]
        own = [_Endpoint(compile_path(path)[0], {"GET": (kind,)}) for path, kind in _OWN_PAGES.items()]
        return documented + own

    def methods(self, path: str) -> list[str]:
        """Return the methods that a path takes; HEAD wherever there is GET."""
        methods = set(self._media_types(path))
        return sorted(methods | {"HEAD"} if "GET" in methods else methods)

    def media_types(self, method: str, path: str) -> tuple[str, ...]:
        """Return the media types of successful answers; none where there is no such endpoint."""
        return self._media_types(path).get("GET" if method == "HEAD" else method, ())

    def _media_types(self, path: str) -> dict[str, tuple[str, ...]]:
        return next((endpoint.media_types for endpoint in self._all if endpoint.path.match(path)), {})


def _sent(responses: dict[str, dict[str, dict[str, object]]]) -> tuple[str, ...]:
    kinds = [kind for status, r in responses.items() if status.startswith("2") for kind in r.get("content", {})]
    return tuple(dict.fromkeys(kinds))


class Negotiation:
    """ASGI middleware: refuses, before anything is done, an Accept that rules out all that an endpoint sends."""

    def __init__(self, app: ASGIApp, endpoints: Endpoints) -> None:
        self.app = app
        self._endpoints = endpoints

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and (accept := _accept(scope)):
            sent = self._endpoints.media_types(scope["method"], scope["path"])
            if sent and not is_acceptable(sent, accept):
                problem = NotAcceptable(f"Accept rules out what is sent here: {' or '.join(sent)}.")
                await problem_response(problem)(scope, receive, send)
                return
        await self.app(scope, receive, send)


def _accept(scope: Scope) -> str:
    """Return the header, joined if it was sent in parts; empty where anything will do."""
    parts = [value for name, value in scope["headers"] if name == b"accept"]
    return "" if not parts or parts == [b"*/*"] else b",".join(parts).decode("latin-1")


@lru_cache(1024)
def is_acceptable(media_types: tuple[str, ...], accept: str) -> bool:
    """Whether one of the media types is acceptable; an Accept that is unreadable is disregarded (RFC 9110)."""
    if not accept.strip(" ,\t"):
        return True
    try:
        return bool(mimeparse.best_match(media_types, accept.lower()))
    except mimeparse.MimeTypeParseException:
        return True
