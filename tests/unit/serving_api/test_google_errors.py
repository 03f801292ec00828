"""The middleware of Perspective's paths: where a key is taken from, and how problems become Google's errors."""

import asyncio
import json
from typing import Any

import pytest

from core.web.problems import NotFound, RateLimited, Unavailable, problem_response
from serving_api.perspective.endpoints import GoogleErrors
from serving_api.perspective.schemas import google_error

PATH = "/v1alpha1/comments:analyze"


def ask(path: str, query: bytes = b"", headers: dict[str, str] | None = None, response: Any = None) -> Any:
    """Return the scope that the application saw, and the messages that the client got."""
    seen: list[Any] = []
    sent: list[Any] = []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope)
        if response is not None:
            await response(scope, receive, send)

    async def send(message: Any) -> None:
        sent.append(message)

    pairs = [(name.lower().encode(), value.encode()) for name, value in (headers or {}).items()]
    scope = {"type": "http", "path": path, "query_string": query, "headers": pairs}
    asyncio.run(GoogleErrors(application)(scope, None, send))
    return seen[0], sent


@pytest.mark.parametrize(
    ("query", "headers", "left", "key"),
    [
        (b"key=ap_1", {}, b"", "Bearer ap_1"),
        (b"alt=json&key=ap_1&prettyPrint=false", {}, b"alt=json&prettyPrint=false", "Bearer ap_1"),
        (b"key=ap%5F1", {}, b"", "Bearer ap_1"),
        (b"key=a&key=b", {}, b"", "Bearer a"),
        (b"", {"X-Goog-Api-Key": "ap_1"}, b"", "Bearer ap_1"),
        (b"key=ap_1", {"Authorization": "Bearer ap_2"}, b"", "Bearer ap_2"),
        (b"alt=json", {}, b"alt=json", None),
        (b"x=%FF&key=%FF", {}, b"x=%FF", "Bearer \xff"),
    ],
)
def test_a_key_leaves_the_address(query: bytes, headers: dict[str, str], left: bytes, key: str | None) -> None:
    scope, _ = ask(PATH, query, headers)
    found = dict(scope["headers"])
    assert scope["query_string"] == left
    assert found.get(b"authorization") == (None if key is None else key.encode("latin-1"))
    assert b"x-goog-api-key" not in found


def test_other_paths_keep_their_address() -> None:
    scope, sent = ask("/texts", b"key=ap_1", {"X-Goog-Api-Key": "a"}, problem_response(NotFound("No.")))
    assert (scope["query_string"], scope["headers"]) == (b"key=ap_1", [(b"x-goog-api-key", b"a")])
    assert dict(sent[0]["headers"])[b"content-type"] == b"application/problem+json"


@pytest.mark.parametrize(
    ("problem", "status", "name"),
    [
        (NotFound("No."), 404, "NOT_FOUND"),
        (RateLimited(1, 1, 7), 429, "RESOURCE_EXHAUSTED"),
        (Unavailable("Later.", code="no_model", retry_after_seconds=60), 503, "UNAVAILABLE"),
    ],
)
def test_a_problem_is_translated_with_its_headers(problem: Any, status: int, name: str) -> None:
    _, (start, body) = ask(PATH, response=problem_response(problem))
    headers = dict(start["headers"])
    assert start["status"] == status
    assert headers[b"content-type"] == b"application/json; charset=UTF-8"
    assert int(headers[b"content-length"]) == len(body["body"])
    assert headers.get(b"retry-after", b"").decode() == problem.headers.get("Retry-After", "")
    error = json.loads(body["body"])["error"]
    assert (error["code"], error["message"], error["status"]) == (status, problem.detail, name)
    assert error["details"][0]["reason"] == problem.code.upper()


def test_an_unknown_status_of_a_client_is_an_invalid_argument() -> None:
    problem = {"status": 418, "code": "teapot", "detail": "Short and stout."}
    assert google_error(problem)["error"]["status"] == "INVALID_ARGUMENT"
