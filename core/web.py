"""Everything HTTP that the APIs share: problems, request ids, health, metrics, serving."""

import asyncio
import json
import re
import signal
import sys
import time
import uuid
from collections.abc import Awaitable, Callable, Sequence
from http import HTTPStatus
from typing import Any, cast

import structlog
import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from core.metrics import HTTP_REQUEST_SECONDS, HTTP_UNHANDLED_ERRORS
from core.problems import FieldError, InvalidFields, Malformed, Problem, UnsupportedType

log = structlog.get_logger()

PROBLEM_TYPE = "application/problem+json"

# A need of a program: its name, and a check that raises with the reason when it is not met.
Check = Callable[[], Awaitable[None]]

_REQUEST_ID = re.compile(r"[\x21-\x7e]{1,128}")
_CHECK_SECONDS = 3.0

_PROBLEM_SCHEMA = {
    "type": "object",
    "required": ["type", "title", "status", "detail", "code"],
    "properties": {
        "type": {"type": "string", "format": "uri-reference"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "code": {"type": "string"},
        "errors": {"type": "array", "items": {"type": "object"}},
    },
}
_EXAMPLES = {
    400: ("malformed_json", "The body is not JSON."),
    401: ("missing_key", "Send an API key: Authorization: Bearer KEY."),
    403: ("scope_missing", "This API key lacks the scope ingest."),
    404: ("not_found", "There is no text d4a7c5f0-7f0e-8c55-9a3e-0f3d6d9f1c2b."),
    408: ("body_timeout", "Nothing came for 30 seconds."),
    413: ("text_too_large", "The text is longer than 65536 bytes of UTF-8."),
    415: ("unsupported_media_type", "Send the body as Content-Type: application/json."),
    422: ("invalid_fields", "Wrong: /label. See errors."),
    503: ("unavailable", "The database is away."),
}


def serve(app: FastAPI, host: str, port: int) -> None:
    """Run `app` until SIGTERM or Ctrl-C; requests under way get ten seconds to end."""
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=10,
    )
    # uvicorn raises the signal again once it has shut down; a wanted end is no failure.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit(0))
    uvicorn.Server(config).run()


def problem_response(problem: Problem) -> Response:
    """Render a problem."""
    body = json.dumps(problem.as_dict(), ensure_ascii=False).encode("utf-8", "replace")
    return Response(body, problem.status, problem.headers, PROBLEM_TYPE)


def install_web(app: FastAPI, checks: dict[str, Check]) -> None:
    """Add problems, request ids, request metrics, /healthz, /readyz and /metrics to `app`."""
    app.add_exception_handler(Problem, _on_problem)
    app.add_exception_handler(RequestValidationError, _on_validation_error)
    app.add_exception_handler(HTTPException, _on_http_exception)
    app.add_middleware(RequestContext)
    _add_health(app, checks)


def problem_examples(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return the OpenAPI descriptions, with examples, of the problems that an endpoint may answer with."""
    return {status: _problem_example(status) for status in statuses}


def _problem_example(status: int) -> dict[str, Any]:
    code, detail = _EXAMPLES[status]
    title = HTTPStatus(status).phrase
    example: dict[str, Any] = {
        "type": f"urn:problem:{code}",
        "title": title,
        "status": status,
        "detail": detail,
        "code": code,
    }
    if status == HTTPStatus.UNPROCESSABLE_ENTITY:
        example["errors"] = [
            {"pointer": "/label", "code": "unknown_label", "detail": "must be one of: toxic, non_toxic"}
        ]
    return {"description": title, "content": {PROBLEM_TYPE: {"schema": _PROBLEM_SCHEMA, "example": example}}}


def require_media_type(request: Request, *accepted: str) -> str:
    """Return the body's media type.

    Raises:
        UnsupportedType: it is none of `accepted`, or its charset is not UTF-8.
    """
    media_type, _, parameters = request.headers.get("content-type", "").partition(";")
    media_type = media_type.strip().lower()
    if media_type not in accepted:
        raise UnsupportedType(f"Send the body as Content-Type: {' or '.join(accepted)}.")
    charset = re.search(r"charset\s*=\s*\"?([\w-]+)", parameters, re.IGNORECASE)
    if charset and charset[1].lower() not in {"utf-8", "utf8", "us-ascii"}:
        raise UnsupportedType(f"Send the body in UTF-8, not in {charset[1]}.")
    return media_type


async def _on_problem(_: Request, error: Exception) -> Response:
    return problem_response(cast(Problem, error))


async def _on_validation_error(_: Request, error: Exception) -> Response:
    errors = cast(RequestValidationError, error).errors()
    if any(e["type"] == "json_invalid" for e in errors):
        return problem_response(Malformed("The body is not JSON.", code="malformed_json"))
    return problem_response(InvalidFields([field_error(e["loc"], e["type"], e["msg"]) for e in errors]))


async def _on_http_exception(_: Request, error: Exception) -> Response:
    """Starlette's own refusals: 404 and 405."""
    http_error = cast(HTTPException, error)
    status = HTTPStatus(http_error.status_code)
    problem = Problem(
        f"{status.description or status.phrase}.",
        code=status.phrase.lower().replace(" ", "_"),
        headers=dict(http_error.headers or {}),
    )
    problem.status = status.value
    return problem_response(problem)


def field_error(location: tuple[int | str, ...], code: str, message: str) -> FieldError:
    """Translate pydantic's location, whose first part says whether it is in the body or the query."""
    where, *path = location
    if where == "body":
        return FieldError(code, message, pointer=json_pointer(path))
    return FieldError(code, message, parameter=str(path[0]) if path else str(where))


def json_pointer(path: Sequence[int | str]) -> str:
    """Return the JSON pointer (RFC 6901) of a path of keys and indexes."""
    return "".join(f"/{str(part).replace('~', '~0').replace('/', '~1')}" for part in path)


class RequestContext:
    """ASGI middleware: request id in and out, one log line and one observation a request, no stack trace out."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request_id = _request_id(scope)
        status = 0

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], (b"x-request-id", request_id.encode())]
            await send(message)

        started = time.perf_counter()
        with structlog.contextvars.bound_contextvars(request_id=request_id):
            try:
                await self.app(scope, receive, send_with_id)
            except Exception:
                HTTP_UNHANDLED_ERRORS.inc()
                log.exception("request.crashed", path=scope["path"])
                if status:
                    raise  # the answer has begun: all that is left is to cut the connection
                await problem_response(Problem("Something went wrong here; it is logged."))(
                    scope, receive, send_with_id
                )
            finally:
                _observe(scope, status, time.perf_counter() - started)


def _request_id(scope: Scope) -> str:
    for name, value in scope["headers"]:
        if name == b"x-request-id":
            given: str = value.decode("latin-1")
            if _REQUEST_ID.fullmatch(given):
                return given
    return uuid.uuid4().hex


def _observe(scope: Scope, status: int, seconds: float) -> None:
    # The route's template, not the path: paths hold ids and would make a metric each.
    route = getattr(scope.get("route"), "path", "other")
    HTTP_REQUEST_SECONDS.labels(scope["method"], route, str(status or "cut")).observe(seconds)
    log.debug("request.served", method=scope["method"], path=scope["path"], status=status, seconds=seconds)


def _add_health(app: FastAPI, checks: dict[str, Check]) -> None:
    @app.get("/healthz", tags=["operations"], summary="The process lives")
    async def healthz() -> dict[str, str]:
        return {"status": "ok"}

    @app.get(
        "/readyz",
        tags=["operations"],
        summary="What this service needs is there",
        responses={503: {"description": "Something is missing; the body names it"}},
    )
    async def readyz(response: Response) -> dict[str, Any]:
        missing = await find_missing(checks)
        response.status_code = 503 if missing else 200
        return {"status": "missing" if missing else "ok", "missing": missing}

    @app.get("/metrics", tags=["operations"], summary="Metrics for Prometheus", response_class=Response)
    async def metrics() -> Response:
        return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)


async def find_missing(checks: dict[str, Check]) -> dict[str, str]:
    """Run the checks side by side; return the reason of each one that fails or takes over three seconds."""

    async def run(check: Check) -> str | None:
        try:
            await asyncio.wait_for(check(), _CHECK_SECONDS)
        except TimeoutError:
            return f"no answer within {_CHECK_SECONDS:g} s"
        except Exception as error:  # noqa: BLE001 - whatever it is, it is why the service is not ready
            return type(error).__name__ if not str(error) else str(error).splitlines()[0]
        return None

    reasons = await asyncio.gather(*(run(check) for check in checks.values()))
    return {name: reason for name, reason in zip(checks, reasons, strict=True) if reason}
