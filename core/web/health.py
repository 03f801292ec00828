"""/healthz, /readyz and /metrics. Reasons shown by /readyz contain no addresses and names."""

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from typing import Literal

import structlog
from fastapi import FastAPI, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic import BaseModel, Field, SecretStr

from core.metrics import metrics_registry
from core.web.negotiation import Router
from core.web.openapi import Responses, answer, refusals
from core.web.problems import MissingKey

# Parts of error messages of Postgres, the network and name resolution, in lower case, and the public reason.
_REASONS = (
    ("password authentication failed", "wrong password"),
    ("pg_hba.conf", "the database does not let us in"),
    ("does not exist", "the database, a role or a table does not exist"),
    ("permission denied", "permission denied"),
    ("connection refused", "connection refused"),
    ("name resolution", "unknown host"),
    ("name or service not known", "unknown host"),
    ("resolve host", "unknown host"),
    ("translate host name", "unknown host"),
    ("starting up", "the database is starting up"),
    ("shutting down", "the database is shutting down"),
    ("too many", "too many connections"),
    ("timeout", "timeout"),
    ("timed out", "timeout"),
    ("certificate", "the certificate is refused"),
    ("network is unreachable", "no connection"),
    ("no route to host", "no connection"),
    ("connection", "no connection"),
)


class NotReady(Exception):
    """A need of the program is not met. The message is public: no addresses, no names."""


def public_reason(error: BaseException) -> str:
    """Return why a check failed, without addresses and names."""
    if isinstance(error, NotReady):
        return str(error)
    if isinstance(error, TimeoutError):
        return "timeout"
    said = str(error).lower()
    found = next((reason for words, reason in _REASONS if words in said), None)
    return found or f"it failed ({type(error).__name__}): see the log"


log = structlog.get_logger()

# A check raises if a need of the program is not met; /readyz shows the `public_reason` of the error. It may
# return a note if the need is met.
Check = Callable[[], Awaitable[str | None]]

_CHECK_SECONDS = 3.0

_READY = answer("Everything that this program needs is there.", {"status": "ok", "missing": {}})
_MISSING = {"status": "missing", "missing": {"database": "connection refused"}}
_METRICS = 'http_request_seconds_count{method="GET",route="/texts/{id}",status="200"} 42.0\n'
_ALIVE = {"status": "ok"}
_TEXT = {"schema": {"type": "string"}, "example": _METRICS}
_MEASURED: Responses = {
    200: {"description": "Prometheus' text format.", "content": {"text/plain": _TEXT}},
}
_HOW_TO_SEND = "Send the token of the settings: Authorization: Bearer METRICS_TOKEN."
_MEASURED_BY_TOKEN: Responses = _MEASURED | refusals(MissingKey(_HOW_TO_SEND))


class Alive(BaseModel):
    """The process lives."""

    status: Literal["ok"] = "ok"


class Readiness(BaseModel):
    """Whether the needs of a program are met."""

    status: Literal["ok", "missing"]
    missing: dict[str, str] = Field(description="What is missing, and why.")
    notes: dict[str, str] | None = Field(None, description="What is in progress although nothing is missing.")


def add_health(app: FastAPI, checks: dict[str, Check], metrics_token: SecretStr | None = None) -> None:
    """Add the endpoints; /readyz runs the named `checks`, and /metrics requires the token, if there is one."""
    router = Router(tags=["operations"])
    logged: dict[str, str] = {}

    @router.get("/healthz", summary="The process lives", responses={200: answer("The process lives.", _ALIVE)})
    async def healthz() -> Alive:
        return Alive()

    @router.get(
        "/readyz",
        summary="What this program needs is there",
        response_model_exclude_none=True,
        responses={200: _READY, 503: answer("Something is missing.", _MISSING, model=Readiness)},
    )
    async def readyz(response: Response) -> Readiness:
        missing, notes = await run_checks(checks, logged)
        response.status_code = 503 if missing else 200
        return Readiness(status="missing" if missing else "ok", missing=missing, notes=notes or None)

    @router.get(
        "/metrics",
        summary="Metrics for Prometheus",
        response_class=Response,
        responses=_MEASURED if metrics_token is None else _MEASURED_BY_TOKEN,
    )
    async def metrics(request: Request) -> Response:
        if metrics_token is not None:
            _require_token(request, metrics_token)
        return Response(generate_latest(metrics_registry()), media_type=CONTENT_TYPE_LATEST)

    app.include_router(router)


def _require_token(request: Request, token: SecretStr) -> None:
    kind, _, given = request.headers.get("authorization", "").partition(" ")
    is_right = secrets.compare_digest(given.strip().encode(), token.get_secret_value().encode())
    if kind.lower() != "bearer" or not is_right:
        raise MissingKey(_HOW_TO_SEND)


async def run_checks(checks: dict[str, Check], logged: dict[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    """Run the checks concurrently; return why some fail or exceed three seconds, and the notes of the rest.

    `logged` has the reason last logged for each unmet need.
    """

    async def run(name: str, check: Check) -> tuple[str | None, str | None]:
        try:
            note = await asyncio.wait_for(check(), _CHECK_SECONDS)
            logged.pop(name, None)
            return None, note
        except TimeoutError:
            return f"no answer within {_CHECK_SECONDS:g} s", None
        except Exception as error:  # noqa: BLE001 - any error is a reason not to be ready
            reason = public_reason(error)
            if logged.get(name) != reason:  # not again at each probe
                log.warning("readiness.missing", need=name, reason=reason, error=str(error))
            logged[name] = reason
            return reason, None

    found = await asyncio.gather(*(run(name, check) for name, check in checks.items()))
    results = dict(zip(checks, found, strict=True))
    missing = {name: reason for name, (reason, _) in results.items() if reason}
    return missing, {name: note for name, (_, note) in results.items() if note}
