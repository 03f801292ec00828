"""Web pages of other sites: which of their requests are refused, and who may read responses (CORS).

A service without keys listens on this machine only, but any web page in a browser there can send requests to it.
With a host name that resolves to 127.0.0.1 (DNS rebinding) a page could also read the responses.
"""

from collections.abc import Collection
from functools import lru_cache
from http import HTTPStatus
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from core.settings import is_loopback
from core.web.problems import HostNotAllowed, Malformed, OriginNotAllowed, Problem, problem_response

_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
# The longest host name with a port. Longer values are not host names, and would fill the cache.
_MOST_CHARACTERS = 300


class BrowserGuard:
    """ASGI middleware: `Host` must name this machine or one of `hosts`; so must `Origin` in writing requests.

    `Origin` may also be one of `origins`.
    """

    def __init__(self, app: ASGIApp, hosts: Collection[str], origins: Collection[str] = ()) -> None:
        self.app = app
        self._origins = frozenset(origin.encode() for origin in origins)
        self._hosts = frozenset(host.lower() for host in hosts)
        self._allows_host = lru_cache(256)(lambda host: self._is_allowed(b"//" + host))
        self._allows_origin = lru_cache(256)(self._is_allowed)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        refusal = self._refusal(scope) if scope["type"] == "http" else None
        app = self.app if refusal is None else problem_response(refusal)
        await app(scope, receive, send)

    def _refusal(self, scope: Scope) -> Problem | None:
        for name, value in scope["headers"]:
            if name == b"host":
                if not self._allows_host(value[:_MOST_CHARACTERS]):
                    return HostNotAllowed()
            elif name == b"origin" and scope["method"] not in _SAFE:  # noqa: SIM102 - the same form as for Host
                if value not in self._origins and not self._allows_origin(value[:_MOST_CHARACTERS]):
                    return OriginNotAllowed()
        return None  # browsers always send Host: this is a script, or HTTP/1.0

    def _is_allowed(self, url: bytes) -> bool:
        """Whether an address, with any port, is on this machine or on one of the hosts that the settings name."""
        try:
            host = (urlsplit(url.decode("ascii")).hostname or "").removesuffix(".")
        except ValueError:
            return False
        return is_loopback(host) or host in self._hosts


_CORS_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
# Headers that scripts may send, in addition to those that CORS always allows.
_SENT_HEADERS = (
    "Authorization",
    "Content-Encoding",
    "Content-Type",
    "If-Match",
    "If-None-Match",
    "If-Range",
    "Last-Event-ID",
    "Range",
    "X-Request-ID",
)
# Headers that scripts may read, in addition to those that CORS always allows.
_EXPOSED = (
    "Accept-Ranges",
    "Content-Disposition",
    "Content-Range",
    "ETag",
    "Link",
    "Location",
    "RateLimit",
    "RateLimit-Policy",
    "Retry-After",
    "X-Replica-Age",
    "X-Replica-Version",
    "X-Request-ID",
)
_CORS_SECONDS = 600  # that a browser remembers a permission


class Cors(CORSMiddleware):
    """Starlette's middleware with our headers; pages of other origins get a problem in place of a permission.

    Permission to read replaces no API key: a browser sends a key only if a script does.
    """

    def __init__(self, app: ASGIApp, origins: Collection[str]) -> None:
        super().__init__(
            app,
            allow_origins=tuple(origins),
            allow_methods=_CORS_METHODS,
            allow_headers=_SENT_HEADERS,
            expose_headers=_EXPOSED,
            max_age=_CORS_SECONDS,
        )

    def preflight_response(self, request_headers: Headers) -> Response:
        """Answer the question whether a page may send a request."""
        if not self.is_allowed_origin(request_headers["origin"]):
            detail = "Web pages of this origin may not call this API. If they should, add it to HTTP_CORS_ORIGINS."
            return problem_response(OriginNotAllowed(detail))
        response = super().preflight_response(request_headers)
        if response.status_code == HTTPStatus.OK:
            return response
        detail = f"{bytes(response.body).decode()}: this API takes no such method or header from web pages."
        return problem_response(Malformed(detail, code="cors_refused"))
