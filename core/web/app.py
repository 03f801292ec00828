"""What both APIs share over HTTP: problems, request ids, metrics, checks of requests, and documentation pages."""

import base64
import hashlib
import re
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Collection
from http import HTTPStatus
from typing import Any, cast
from urllib.parse import unquote_to_bytes

import structlog
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute, request_response
from fastapi.telemetry import TelemetryConfig
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from core.metrics import HTTP_REQUEST_SECONDS, HTTP_UNHANDLED_ERRORS
from core.settings import AccessSettings
from core.tracing import tracing
from core.web.browsers import BrowserGuard, Cors
from core.web.health import Check, add_health
from core.web.negotiation import Negotiation
from core.web.openapi import explain_parameters
from core.web.problems import (
    FieldError,
    InvalidFields,
    Malformed,
    Problem,
    TooLarge,
    UnsupportedType,
    problem_response,
)
from core.web.rate_limits import begin_request
from core.web.server import close_unless_continued, http_settings, read_request_id

_INLINE_SCRIPT = re.compile(rb"<script>(.*?)</script>", re.DOTALL)
_CHARSET = re.compile(r"charset\s*=\s*\"?([\w-]+)", re.IGNORECASE)

# Swagger UI and ReDoc set inline styles and use data: images; ReDoc searches in a worker.
_POLICY = (
    "default-src 'none'; script-src 'self'{scripts}; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "font-src 'self' data:; connect-src 'self'; worker-src blob:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)


def _with_policy(handle: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
    """Add a Content-Security-Policy for the page that a handler returns."""

    async def handle_with_policy(request: Request) -> Response:
        response = await handle(request)
        response.headers["Content-Security-Policy"] = content_security_policy(bytes(response.body))
        response.headers["Referrer-Policy"] = "no-referrer"
        return response

    return handle_with_policy


def content_security_policy(page: bytes) -> str:
    """Return the policy that allows only a page's own inline scripts, each by its hash."""
    hashes = (hashlib.sha256(script).digest() for script in _INLINE_SCRIPT.findall(page))
    return _POLICY.format(scripts="".join(f" 'sha256-{base64.b64encode(one).decode()}'" for one in hashes))


log = structlog.get_logger()

# Texts and errors quote strangers: no browser may interpret them as a page.
_NOSNIFF = (b"x-content-type-options", b"nosniff")
# FastAPI's own telemetry, which the environment may switch on, quotes exceptions, and these may quote texts.
NO_TELEMETRY: TelemetryConfig = {"auto_configure": False, "tracing": False, "metrics": False, "logs": False}

# Other methods are counted as one, since clients may invent any number.
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


def install_web(app: FastAPI, checks: dict[str, Check], access: AccessSettings | None = None) -> None:
    """Add problems, negotiation, request ids, metrics and traces, /healthz, /readyz and /metrics to `app`.

    If `access` requires no keys, requests from other sites' web pages are refused.
    """
    app.add_exception_handler(Problem, _on_problem)
    app.add_exception_handler(RequestValidationError, _on_validation_error)
    app.add_exception_handler(HTTPException, _on_http_exception)
    for route in app.routes:
        if isinstance(route, APIRoute) and route.methods and not route.include_in_schema:
            route.methods.add("HEAD")  # FastAPI's documentation pages
            route.app = request_response(_with_policy(route.get_route_handler()))
    http = http_settings()
    plain = [route for route in app.routes if isinstance(route, PlainRoute)]
    direct = {(method, route.path): route for route in plain for method in route.methods or ()}
    app.add_middleware(Negotiation, api=app, direct=direct)
    if access is not None and not access.require_api_key:
        app.add_middleware(BrowserGuard, hosts=http.allowed_hosts, origins=http.allowed_origins)
    if http.allowed_origins:
        app.add_middleware(Cors, origins=http.allowed_origins)
    app.add_middleware(RequestContext)
    add_health(app, checks, access.metrics_token if access else None)


class PlainRoute(APIRoute):
    """A route without parameters and dependencies, which FastAPI documents and does not serve.

    `Negotiation` finds it by its path and calls its endpoint with the request. Without routing, FastAPI's handler
    and its two exit stacks, POST /texts takes a third less CPU time before its commit (`make bench ONLY=single`).
    Exceptions get the application's handlers.
    """

    def __init__(self, path: str, endpoint: Callable[[Request], Awaitable[Response]], **options: Any) -> None:
        super().__init__(path, endpoint, **options)
        self.app = self._serve

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        try:
            response = await self.endpoint(request)
        except Exception as error:
            handlers = request.app.exception_handlers
            handler = next((handlers[kind] for kind in type(error).__mro__ if kind in handlers), None)
            if handler is None:
                raise
            response = await handler(request, error)
        await response(scope, receive, send)


def require_media_type(request: Request, *accepted: str) -> str:
    """Return the body's media type.

    Raises:
        UnsupportedType: it is none of `accepted`, or its charset is not UTF-8.
    """
    media_type, _, parameters = request.headers.get("content-type", "").partition(";")
    media_type = media_type.strip().lower()
    if media_type not in accepted:
        raise UnsupportedType(f"Send the body as Content-Type: {' or '.join(accepted)}.")
    charset = _CHARSET.search(parameters) if parameters else None
    if charset and charset[1].lower() not in {"utf-8", "utf8", "us-ascii"}:
        raise UnsupportedType(f"Send the body in UTF-8, not in {charset[1]}.")
    return media_type


async def read_body(request: Request, most: int) -> bytes:
    """Return the body.

    Raises:
        TooLarge: it has more than `most` bytes.
    """
    body = bytearray()  # to add to bytes would copy them for each part, of which there may be one for each byte
    async for part in request.stream():
        body += part
        if len(body) > most:
            raise TooLarge(f"The body is over {most} bytes.")
    return bytes(body)


def check_query_string(request: Request, repeatable: Collection[str] = ()) -> None:
    """Refuse what a framework would repair silently: bad UTF-8, and a parameter that is sent twice.

    Parameters in `repeatable` may be sent several times.

    Raises:
        Malformed: the query string is not UTF-8.
        InvalidFields: other parameters are repeated.
    """
    query = request.scope["query_string"]
    if not query:
        return
    try:
        unquote_to_bytes(query).decode()
    except UnicodeDecodeError as error:
        raise Malformed("The query string is not UTF-8.", code="malformed_query") from error
    counts = Counter(name for name, _ in request.query_params.multi_items())
    repeated = [name for name, count in counts.items() if count > 1 and name not in repeatable]
    if repeated:
        raise InvalidFields(
            [FieldError("repeated", "May be sent only once.", parameter=name) for name in repeated]
        )


async def query_is_checked(request: Request) -> None:
    """Check the query string of an endpoint without repeatable parameters: a dependency."""
    check_query_string(request)


async def _on_problem(_: Request, error: Exception) -> Response:
    return problem_response(cast(Problem, error))


async def _on_validation_error(request: Request, error: Exception) -> Response:
    return problem_response(explain_parameters(request, cast(RequestValidationError, error)))


async def _on_http_exception(_: Request, error: Exception) -> Response:
    """Render Starlette's own refusals: 404, and 405 of undocumented paths."""
    http_error = cast(HTTPException, error)
    status = HTTPStatus(http_error.status_code)
    problem = Problem(
        f"{status.description or status.phrase}.",
        code=status.phrase.lower().replace(" ", "_"),
        headers=dict(http_error.headers or {}),
    )
    problem.status = status.value
    return problem_response(problem)


class RequestContext:
    """ASGI middleware: request ids, and one log line and one observation for each request."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request_id, expects = _read_headers(scope)
        status = 0
        if expects:
            send = close_unless_continued(receive, send)

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                own = (b"x-request-id", request_id.encode()), _NOSNIFF
                message["headers"] = [*message["headers"], *own, *scope.get("rate_limit", ())]
            await send(message)

        started = time.perf_counter()
        # The server gives each request its own task and context: no reset is needed.
        structlog.contextvars.bind_contextvars(request_id=request_id)
        begin_request(scope)
        span, started_ns = tracing.begin_request(scope, request_id), time.time_ns()
        try:
            await self.app(scope, receive, send_with_id)
        except Exception:
            HTTP_UNHANDLED_ERRORS.inc()
            log.exception("request.crashed", path=scope["path"])
            if status:
                raise  # the response has begun: only closing the connection is left
            await problem_response(Problem("Internal error. Quote the X-Request-ID when you report it."))(
                scope, receive, send_with_id
            )
        finally:
            # The route's template, since each path with an id would be a separate series.
            route = getattr(scope.get("route"), "path", "other")
            _observe(scope, route, status, time.perf_counter() - started)
            tracing.end_request(span, started_ns, scope, route, status)


def _read_headers(scope: Scope) -> tuple[str, bool]:
    """Return the id of a request, and whether it has the header Expect; remove its cookies.

    No program uses cookies. FastAPI would parse them before it checks keys, in quadratic time.
    """
    names = [name for name, _ in scope["headers"]]
    if b"cookie" in names:
        scope["headers"] = [header for header in scope["headers"] if header[0] != b"cookie"]
    sent = scope["headers"] if b"x-request-id" in names else ()
    return read_request_id(sent), b"expect" in names


def _observe(scope: Scope, route: str, status: int, seconds: float) -> None:
    method = scope["method"] if scope["method"] in _METHODS else "other"
    HTTP_REQUEST_SECONDS.labels(method, route, str(status or "cut")).observe(seconds)
    log.debug("request.served", method=scope["method"], path=scope["path"], status=status, seconds=seconds)
