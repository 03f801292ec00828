"""Browsers: which requests of other sites' pages are refused, who may read responses (CORS), and our own pages.

A service without keys listens on this machine only, but any web page in a browser there can send requests to it.
With a host name that resolves to 127.0.0.1 (DNS rebinding) a page could also read the responses.

Our own pages are static files: `GET /` for browsers, and the files below `/static`. A page loads scripts and
styles from its own service only, no inline ones, and may send requests to one other service.
"""

import os
import re
from collections.abc import Callable, Collection, Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import orjson
from fastapi import FastAPI, Request, Response
from pydantic import Field
from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.routing import Route
from starlette.staticfiles import PathLike, StaticFiles
from starlette.types import ASGIApp, Receive, Scope, Send

from core.settings import SettingsGroup, is_loopback
from core.web.negotiation import choose_media_type
from core.web.openapi import Responses, answer, header
from core.web.problems import HostNotAllowed, Malformed, OriginNotAllowed, Problem, problem_response

_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})


class BrowserGuard:
    """ASGI middleware: `Host` must name this machine or one of `hosts`; so must `Origin` in writing requests.

    `Origin` may also be one of `origins`.
    """

    def __init__(self, app: ASGIApp, hosts: Collection[str], origins: Collection[str] = ()) -> None:
        self.app = app
        self._origins = frozenset(origin.encode() for origin in origins)
        # As people write them: also with a port, in brackets or as an address.
        self._hosts = frozenset(urlsplit(f"//{host.rpartition('//')[2]}").hostname for host in hosts) - {None}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        refusal = self._refusal(scope) if scope["type"] == "http" else None
        app = self.app if refusal is None else problem_response(refusal)
        await app(scope, receive, send)

    def _refusal(self, scope: Scope) -> Problem | None:
        for name, value in scope["headers"]:
            if name == b"host":
                if not self._is_allowed(b"//" + value):
                    return HostNotAllowed()
            elif name == b"origin" and scope["method"] not in _SAFE:  # noqa: SIM102 - the same form as for Host
                if value not in self._origins and not self._is_allowed(value):
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


SHARED = Path(__file__).parent / "static"

_HTML = "text/html"
_SENT = ("application/json", _HTML)
_INDEX = "index.html"
_HOST = re.compile(r"([A-Za-z0-9.\-_]+|\[[0-9A-Fa-f:.]+\])(:[0-9]+)?")
_POLICY = (
    "default-src 'self'; connect-src 'self'{others}; img-src 'self' data:; object-src 'none'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
)

_FILE_HEADERS = {
    "Accept-Ranges": "none",
    "Cache-Control": "no-cache",
    "Content-Security-Policy": _POLICY.format(others=""),
    "Referrer-Policy": "no-referrer",
}

# Returns the members of the JSON answer of `GET /`.
Links = Callable[[Request], Mapping[str, Any]]


class PageSettings(SettingsGroup):
    """Where browsers find the services that the pages link to."""

    page_ingestion_url: str | None = Field(
        None,
        description="Address of the ingestion API in a browser. Default: port 8080 of the host that served the "
        "page.",
    )
    page_serving_url: str | None = Field(
        None,
        description="Address of the serving API in a browser. Default: port 9000 of the host that served the "
        "page.",
    )
    page_argilla_url: str | None = Field(
        None, description="Address of Argilla in a browser. Default: port 6900 of the host that served the page."
    )

    def ingestion_url(self, request: Request) -> str:
        """Return the address of the ingestion API for the browser that sent a request."""
        return self.page_ingestion_url or beside(request, 8080)

    def serving_url(self, request: Request) -> str:
        """Return the address of the serving API for the browser that sent a request."""
        return self.page_serving_url or beside(request, 9000)

    def argilla_url(self, request: Request) -> str:
        """Return the address of Argilla for the browser that sent a request."""
        return self.page_argilla_url or beside(request, 6900)


def beside(request: Request, port: int) -> str:
    """Return the address of another port of the host that a request names; of this machine, if it names none."""
    found = _HOST.fullmatch(request.headers.get("host", ""))
    return f"{request.scope['scheme']}://{found[1] if found else '127.0.0.1'}:{port}"


class _PageFiles(StaticFiles):
    """The files of a folder, which browsers ask for again before they use a copy."""

    def file_response(
        self, full_path: PathLike, stat_result: os.stat_result, scope: Scope, status_code: int = 200
    ) -> Response:
        """Return a whole file, or 304 to a browser that holds it."""
        # Starlette refuses a wrong Range in plain text.
        scope["headers"] = [header for header in scope["headers"] if header[0] != b"range"]
        response = super().file_response(full_path, stat_result, scope, status_code)
        response.headers.update(_FILE_HEADERS)
        return response


def add_page(app: FastAPI, folder: Path, links: Links, connects_to: Callable[[Request], str]) -> None:
    """Add `GET /` and `GET /static/…` to an application.

    Args:
        app: the application.
        folder: holds the page's own files, among them index.html.
        links: makes the JSON answer of `GET /`.
        connects_to: returns the address of the other service that the page may send requests to.
    """
    files = _PageFiles(directory=folder)

    async def start(request: Request) -> Response:
        """Send the page to browsers, and to all others, as JSON, links to the main endpoints and the settings."""
        accept = ",".join(request.headers.getlist("accept"))
        if choose_media_type(_SENT, accept) == _HTML:
            response = await files.get_response(_INDEX, request.scope)
            response.headers["Content-Security-Policy"] = _policy(connects_to(request))
        else:
            response = Response(orjson.dumps(links(request)), media_type="application/json")
        response.headers["Vary"] = "Accept"
        return response

    app.add_api_route("/", start, summary="The page, or links", responses=START, tags=["page"])
    app.router.routes.append(Route("/", start, methods=["HEAD"]))
    app.mount("/static/shared", _PageFiles(directory=SHARED))
    app.mount("/static", files)


START: Responses = {
    200: answer("The page, or links", {"docs": "http://127.0.0.1:9000/docs"})
    | {"headers": {"Vary": header("The page and the links have one path.", "Accept")}}
}
START[200]["content"]["application/json"]["schema"] = {"type": "object"}
START[200]["content"][_HTML] = {"schema": {"type": "string"}, "example": "<!doctype html>…"}


def _policy(connects_to: str) -> str:
    """Return the Content-Security-Policy of a page."""
    parts = urlsplit(connects_to)
    return _POLICY.format(others=f" {parts.scheme}://{parts.netloc}" if parts.netloc else "")
