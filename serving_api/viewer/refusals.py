"""Refusals that clients of either kind can read: problems, with what the original sends in them."""

from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute

from core.web.app import field_error
from core.web.openapi import header, wrong_parameter
from core.web.problems import InvalidFields, NotFound, Problem

# What the original calls them. A clients' library looks at these, and at `error`.
_CODES = {
    401: "ExternalUnauthenticatedError",
    403: "ExternalAuthenticatedError",
    404: "ResponseNotFound",
    422: "InvalidParameter",
    503: "ResponseNotReady",
}


class ViewerRoute(APIRoute):
    """A route whose refusals have an `error` member, and an X-Error-Code."""

    def get_route_handler(self) -> Callable[[Request], Awaitable[Response]]:  # type: ignore[override]
        """Return the handler."""
        handle = super().get_route_handler()

        async def handle_and_translate(request: Request) -> Response:
            try:
                return await handle(request)
            except RequestValidationError as error:
                wrong = InvalidFields([field_error(e["loc"], e["type"], e["msg"]) for e in error.errors()])
                raise _translated(wrong) from error
            except Problem as problem:
                raise _translated(problem) from problem.__cause__

        return handle_and_translate


def _translated(problem: Problem) -> Problem:
    """Say the same in the original's words, too."""
    errors = problem.extra.get("errors", [])
    is_missing = any(error["code"] == "missing" for error in errors)
    words = [f"Parameter '{error['parameter']}': {error['detail']}" for error in errors if "parameter" in error]
    problem.extra["error"] = " ".join(words) or problem.detail
    code = "MissingRequiredParameter" if is_missing else _CODES.get(problem.status)
    if code:
        problem.headers["X-Error-Code"] = code
    return problem


def no_dataset(name: str, known: list[str]) -> NotFound:
    """Return the refusal of an unknown dataset."""
    return NotFound(f"There is no dataset {name!r}; there are: {', '.join(known)}.", code="dataset_not_found")


def no_config(name: str, dataset: str) -> NotFound:
    """Return the refusal of an unknown config."""
    detail = f"There is no config {name!r} of {dataset}: it is live, or the name of a snapshot."
    return NotFound(detail, code="config_not_found")


def no_split(name: str, config: str, known: list[str]) -> NotFound:
    """Return the refusal of an unknown split."""
    return NotFound(
        f"There is no split {name!r} of {config}; there are: {', '.join(known)}.", code="split_not_found"
    )


def documented(described: dict[str, Any], error: str, code: str) -> dict[str, Any]:
    """Add what the original sends in a refusal."""
    content = {
        kind: media | {"example": media["example"] | {"error": error}}
        for kind, media in described["content"].items()
    }
    more = {"X-Error-Code": header("The original's name of it.", code)}
    return described | {"content": content, "headers": described.get("headers", {}) | more}


def documented_wrong(parameter: str, code: str, detail: str) -> dict[str, Any]:
    wrong = wrong_parameter(parameter, code, detail)
    return documented(wrong, f"Parameter '{parameter}': {detail}", "InvalidParameter")


NO_CONFIG = "There is no config 'x' of toxicity: it is live, or the name of a snapshot."
TOO_BUSY = "Too many queries are waiting."
