"""Accept, Allow and HEAD, as the OpenAPI document of an application decides them."""

from collections.abc import Iterator

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from hypothesis import given
from hypothesis import strategies as st

from core.web.app import install_web
from core.web.negotiation import Router, choose_media_type

JSON = ("application/json",)

ACCEPTABLE = [
    "",
    "*/*",
    "*",
    "application/*",
    "application/json",
    "Application/JSON",
    "application/json;q=0.001",
    "application/json; charset=utf-8",
    "text/html, application/xhtml+xml, */*;q=0.8",
    "application/*;q=0, application/json",
    "image/png,,application/json",
    ", ,",
    "an Accept that nobody can read",
    'application/json;profile=";q=0,"',
    'application/json;profile=";\\";q=0"',
    "application/json;profile=x;q=0, application/json",
    "text/html;" + "a=b;" * 2000,  # longer than what is looked at
]
NOT_ACCEPTABLE = [
    "text/html",
    "text/*",
    "application/problem+json",
    "application/json;q=0",
    "application/json;q=0.0, */*",
    "application/json;q=0, application/*;q=0.5",
    "*/*;q=0",
    "image/png, image/*;q=0.5",
    'text/html;profile=", application/json"',
    'text/html;profile="a\\", application/json"',
    "application/json;profile=x, application/json;q=0",
]


@pytest.mark.parametrize("accept", ACCEPTABLE)
def test_what_is_acceptable(accept: str) -> None:
    assert choose_media_type(JSON, accept) == "application/json"


@pytest.mark.parametrize("accept", NOT_ACCEPTABLE)
def test_what_is_not_acceptable(accept: str) -> None:
    assert choose_media_type(JSON, accept) == ""


@pytest.mark.parametrize(
    ("accept", "chosen"),
    [
        ("text/event-stream", "text/event-stream"),
        ("text/event-stream, */*", "text/event-stream"),
        ("text/event-stream;q=0.5, */*", "application/json"),
        ("application/json;q=0.5, text/event-stream;q=0.6", "text/event-stream"),
        ("text/*;q=0.3, application/json;q=0.2, */*", "text/event-stream"),
        ("*/*", "application/json"),
        ("image/png", ""),
    ],
)
def test_what_the_client_prefers_is_chosen(accept: str, chosen: str) -> None:
    assert choose_media_type(("application/json", "text/event-stream"), accept) == chosen


@given(st.text(st.characters(max_codepoint=255)))
def test_no_accept_breaks_anything(accept: str) -> None:
    choose_media_type(JSON, accept)


@pytest.fixture
def client() -> Iterator[TestClient]:
    app, router = FastAPI(redirect_slashes=False), Router()
    calls: list[str] = []

    @router.get("/calls")
    async def list_calls() -> list[str]:
        return calls

    @router.post("/calls")
    async def add_call() -> None:
        calls.append("called")

    @router.post("/calls/many")
    async def add_calls() -> None:
        calls.append("called")

    @router.get("/calls/{number}")
    async def get_call(number: int) -> int:
        return number

    app.include_router(router)
    install_web(app, {})
    with TestClient(app) as client:
        yield client


def test_a_refused_request_has_done_nothing(client: TestClient) -> None:
    answer = client.post("/calls", headers={"Accept": "text/html"})
    assert (answer.status_code, answer.json()["code"]) == (406, "not_acceptable")
    assert answer.headers["content-type"] == "application/problem+json"
    assert client.get("/calls").json() == []


def test_an_accept_in_several_headers_is_one(client: TestClient) -> None:
    headers = [("Accept", "text/html"), ("Accept", "application/json;q=0.1")]
    assert client.get("/calls", headers=headers).status_code == 200


@pytest.mark.parametrize(
    ("path", "kind", "other"),
    [
        ("/metrics", "text/plain; version=0.0.4", "application/json"),
        ("/docs", "text/html", "application/json"),
        ("/openapi.json", "application/json", "text/html"),
    ],
)
def test_each_path_sends_its_own_type(client: TestClient, path: str, kind: str, other: str) -> None:
    assert client.get(path, headers={"Accept": kind}).status_code == 200
    assert client.get(path, headers={"Accept": other}).status_code == 406


def test_problems_are_problems_whatever_is_accepted(client: TestClient) -> None:
    answer = client.get("/nowhere", headers={"Accept": "text/html"})
    assert (answer.status_code, answer.headers["content-type"]) == (404, "application/problem+json")


@pytest.mark.parametrize(
    ("path", "allowed"),
    [("/calls", "GET, HEAD, POST"), ("/calls/many", "POST"), ("/calls/1", "GET, HEAD"), ("/docs", "GET, HEAD")],
)
def test_another_method_is_told_those_that_are_allowed(client: TestClient, path: str, allowed: str) -> None:
    answer = client.request("DELETE", path)
    assert (answer.status_code, answer.headers["allow"]) == (405, allowed)
    assert answer.headers["content-type"] == "application/problem+json"


def test_a_fixed_path_is_not_taken_for_a_parameter(client: TestClient) -> None:
    assert client.get("/calls/many").status_code == 405


def test_head_answers_as_get_does(client: TestClient) -> None:
    head, get = client.head("/calls/7"), client.get("/calls/7")
    assert head.status_code == get.status_code == 200
    assert head.headers["content-length"] == get.headers["content-length"]
