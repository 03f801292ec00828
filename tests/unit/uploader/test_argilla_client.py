"""Tests of uploader.argilla.client: answers as the real server was seen to give them."""

import asyncio
from collections.abc import Callable
from typing import Any
from uuid import UUID

import httpx
import pytest
from pydantic import SecretStr

from core.settings import ArgillaSettings
from uploader.argilla.client import Argilla, make_http_client
from uploader.argilla.errors import AlreadyThere, ArgillaError, Fault, Gone, Refused, Stopped, Unreachable

_ID = UUID(int=1)
_AT_LOC = {
    "detail": {
        "code": "argilla.api.errors::ValidationError",
        "params": {
            "errors": [
                {
                    "type": "x",
                    "loc": ["body", "items", 3, "suggestions", 0, "agent"],
                    "msg": "String should match",
                },
                {"type": "x", "loc": ["body", "items", 3, "fields", "text", "str"], "msg": "not a string"},
                {"type": "x", "loc": ["body", "items", 0, "fields"], "msg": "missing"},
            ]
        },
    }
}
_NO_INDEX = {
    "detail": {
        "code": "argilla.api.errors::ValidationError",
        "params": {"errors": [{"type": "x", "loc": ["body", "items"], "msg": "External IDs must be unique"}]},
    }
}
_AT_POSITION = {"detail": "Record at position 12 is not valid because metadata is not valid:\nline two"}


def _put(answer: Callable[[httpx.Request], httpx.Response]) -> None:
    async def put() -> None:
        async with httpx.AsyncClient(base_url="http://argilla/", transport=httpx.MockTransport(answer)) as http:
            await Argilla(http).put_records(_ID, [{"external_id": "a"}])

    asyncio.run(put())


def _refusal(body: Any) -> Refused:
    with pytest.raises(Refused) as caught:
        _put(lambda _: httpx.Response(422, json=body))
    return caught.value


def test_a_refusal_names_the_position_in_its_words() -> None:
    refusal = _refusal(_AT_POSITION)
    assert refusal.by_position == {12: "metadata is not valid:\nline two"}


def test_a_refusal_names_every_item_by_its_location() -> None:
    words = _refusal(_AT_LOC).by_position
    assert words == {
        3: "suggestions.0.agent: String should match; fields.text.str: not a string",
        0: "fields: missing",
    }


@pytest.mark.parametrize("body", [_NO_INDEX, {"detail": "Something else"}, {"detail": []}, {}, [], "x", None])
def test_a_refusal_without_a_position_names_none(body: Any) -> None:
    assert _refusal(body).by_position == {}


def test_a_refusal_does_not_show_its_words_in_logs() -> None:
    assert "metadata" not in str(_refusal(_AT_POSITION))


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (401, Stopped),
        (403, Stopped),
        (404, Gone),
        (409, AlreadyThere),
        (429, Unreachable),
        (500, Fault),
        (502, Unreachable),
        (503, Unreachable),
        (504, Unreachable),
        (301, Stopped),
    ],
)
def test_statuses_are_sorted_by_what_helps(status: int, kind: type[ArgillaError]) -> None:
    with pytest.raises(ArgillaError) as caught:
        _put(lambda _: httpx.Response(status))
    assert type(caught.value) is kind


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (httpx.ConnectError("refused"), Unreachable),
        (httpx.ConnectTimeout("slow"), Unreachable),
        (httpx.RemoteProtocolError("cut"), Unreachable),
        (httpx.ReadTimeout("slow"), Fault),
        (httpx.WriteTimeout("slow"), Fault),
    ],
)
def test_failed_calls_are_sorted_by_what_helps(error: httpx.TransportError, kind: type[ArgillaError]) -> None:
    def fail(_: httpx.Request) -> httpx.Response:
        raise error

    with pytest.raises(ArgillaError) as caught:
        _put(fail)
    assert type(caught.value) is kind


def test_an_answer_that_is_not_json_is_not_argilla() -> None:
    with pytest.raises(Unreachable):
        _put(lambda _: httpx.Response(200, text="<html>"))


def test_the_key_goes_with_each_call() -> None:
    async def headers() -> httpx.Headers:
        async with make_http_client(ArgillaSettings(api_key=SecretStr("k")), 1) as http:
            return http.headers

    assert asyncio.run(headers())["x-argilla-api-key"] == "k"
