"""/healthz, /readyz and /metrics: what every program tells about itself."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import FastAPI, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from core.openapi import answer
from core.server import metrics_registry

# A need of a program: a check that raises with the reason when it is not met.
Check = Callable[[], Awaitable[None]]

_CHECK_SECONDS = 3.0

_READY = answer("Everything that this program needs is there.", {"status": "ok", "missing": {}})
_MISSING = {"status": "missing", "missing": {"database": "connection refused"}}
_METRICS = 'http_request_seconds_count{method="GET",route="/texts/{id}",status="200"} 42.0\n'


def add_health(app: FastAPI, checks: dict[str, Check]) -> None:
    """Add the endpoints; /readyz runs the named `checks`."""

    @app.get(
        "/healthz",
        tags=["operations"],
        summary="The process lives",
        responses={200: answer("The process lives.", {"status": "ok"})},
    )
    async def healthz() -> dict[str, str]:
        return {"status": "ok"}

    @app.get(
        "/readyz",
        tags=["operations"],
        summary="What this program needs is there",
        responses={200: _READY, 503: answer("Something is missing; `missing` says what, and why.", _MISSING)},
    )
    async def readyz(response: Response) -> dict[str, Any]:
        missing = await find_missing(checks)
        response.status_code = 503 if missing else 200
        return {"status": "missing" if missing else "ok", "missing": missing}

    @app.get(
        "/metrics",
        tags=["operations"],
        summary="Metrics for Prometheus",
        response_class=Response,
        responses={200: answer("Prometheus' text format.", _METRICS, "text/plain")},
    )
    async def metrics() -> Response:
        return Response(generate_latest(metrics_registry()), media_type=CONTENT_TYPE_LATEST)


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
