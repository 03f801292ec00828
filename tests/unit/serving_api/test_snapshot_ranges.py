"""Ranges of a file over HTTP, held against a plain model of RFC 9110."""

import asyncio
import io
from collections.abc import Iterator
from typing import BinaryIO

import pytest
from fastapi import FastAPI, Request, Response
from fastapi.testclient import TestClient
from hypothesis import example, given
from hypothesis import strategies as st

from core.web.app import install_web
from core.web.negotiation import Router
from serving_api.file_response import ByteRange, Sending, ServedFile, pieces, send_file
from serving_api.replica.query_pool import FairThreads
from serving_api.snapshots.storage import no_snapshot

_SIZE = 300_000  # more than one piece
_CONTENT = bytes(number * 7 % 251 for number in range(_SIZE))
_ETAG = "ab" * 32


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    root = tmp_path_factory.mktemp("files")
    (root / "file").write_bytes(_CONTENT)
    threads = FairThreads("downloads", 2)
    app = FastAPI()

    async def get_file(request: Request, name: str) -> Response:
        def open_file() -> BinaryIO:
            try:
                return (root / name).open("rb")
            except FileNotFoundError as error:
                raise no_snapshot() from error

        headers = {"Cache-Control": "private, no-cache"}
        file = ServedFile(_SIZE, f'"{_ETAG}"', "application/x", "attachment", headers)
        return await send_file(request, file, open_file, Sending(threads))

    router = Router(default_response_class=Response)
    router.add_api_route("/{name}", get_file)
    app.include_router(router)
    install_web(app, {})
    with TestClient(app) as client:
        yield client
    threads.close()


def model(range_: str) -> tuple[int, bytes]:
    """Return the status and the body of a request for `bytes=…`."""
    first, dash, last = range_.partition("-")
    if not dash or "," in range_ or not (first + last).isdigit():
        return 200, _CONTENT
    if not first:
        return (206, _CONTENT[-int(last) :]) if int(last) else (416, b"")
    if last and int(last) < int(first):
        return 200, _CONTENT
    part = _CONTENT[int(first) : int(last) + 1] if last else _CONTENT[int(first) :]
    return (206, part) if part else (416, b"")


_NUMBERS = st.integers(0, _SIZE + 5).map(str) | st.sampled_from(["", str(_SIZE - 1), str(_SIZE), str(10**18)])


@given(st.builds("{}{}{}".format, _NUMBERS, st.sampled_from(["-", "-", "-", "", ",", "-1,3-"]), _NUMBERS))
@example("-0")
@example("-")
@example("5-4")
@example(f"{_SIZE - 1}-")
@example(f"-{_SIZE + 1}")
@example("0-0,5-5")
def test_a_range_is_what_the_model_says(client: TestClient, range_: str) -> None:
    answer = client.get("/file", headers={"Range": f"bytes={range_}"})
    status, body = model(range_)
    assert answer.status_code == status
    if status == 416:
        assert answer.headers["content-range"] == f"bytes */{_SIZE}"
        assert answer.json()["code"] == "range_not_satisfiable"
        return
    assert answer.content == body
    assert answer.headers["content-length"] == str(len(body))
    if status == 206:
        start = _CONTENT.find(body) if range_.startswith("-") else int(range_.partition("-")[0])
        if not range_.startswith("-"):
            assert answer.headers["content-range"] == f"bytes {start}-{start + len(body) - 1}/{_SIZE}"


@pytest.mark.parametrize(
    "range_", ["items=0-5", "bytes 0-5", "bytes=a-b", "bytes=--5", "bytes=0x1-5", "bytes=٣-٤"]
)
def test_what_is_no_range_is_disregarded(client: TestClient, range_: str) -> None:
    answer = client.get("/file", headers={b"Range": range_.encode()})
    assert (answer.status_code, len(answer.content)) == (200, _SIZE)


def test_a_file_says_how_to_keep_it(client: TestClient) -> None:
    headers = client.get("/file").headers
    assert headers["etag"] == f'"{_ETAG}"'
    assert headers["cache-control"] == "private, no-cache"
    assert headers["accept-ranges"] == "bytes"


@pytest.mark.parametrize(
    ("condition", "status"),
    [
        (f'"{_ETAG}"', 200),
        (f'"other", "{_ETAG}"', 200),
        ("*", 200),
        ('"other"', 412),
        (f'W/"{_ETAG}"', 412),  # a weak validator never matches
        ("", 412),
    ],
)
def test_if_match_refuses_another_version(client: TestClient, condition: str, status: int) -> None:
    for method in ("GET", "HEAD"):
        answer = client.request(method, "/file", headers={"If-Match": condition, "Range": "bytes=0-9"})
        assert answer.status_code == (206 if (status, method) == (200, "GET") else status)
        assert answer.headers["etag"] == f'"{_ETAG}"'
    if status == 412:
        assert client.get("/file", headers={"If-Match": condition}).json()["code"] == "precondition_failed"


@pytest.mark.parametrize(
    ("condition", "status"),
    [
        (f'"{_ETAG}"', 206),
        (f'W/"{_ETAG}"', 200),  # a weak validator proves nothing about bytes
        ('"other"', 200),
        ("Sat, 28 Nov 2026 14:00:00 GMT", 200),
        ("", 200),
    ],
)
def test_a_part_is_sent_only_if_the_file_is_the_same(client: TestClient, condition: str, status: int) -> None:
    answer = client.get("/file", headers={"Range": "bytes=0-9", "If-Range": condition})
    assert (answer.status_code, len(answer.content)) == (status, 10 if status == 206 else _SIZE)


def test_who_holds_it_gets_nothing(client: TestClient) -> None:
    answer = client.get("/file", headers={"If-None-Match": f'"x", "{_ETAG}"', "Range": "bytes=0-9"})
    assert (answer.status_code, answer.content) == (304, b"")


def test_head_has_the_headers_of_all_of_it(client: TestClient) -> None:
    answer = client.head("/file", headers={"Range": "bytes=0-9"})
    assert (answer.status_code, answer.content) == (200, b"")
    assert answer.headers["content-length"] == str(_SIZE)


def test_a_file_that_is_gone_is_not_found(client: TestClient) -> None:
    assert client.get("/missing").json()["code"] == "snapshot_not_found"


def test_a_file_that_was_cut_is_no_whole_answer() -> None:
    threads = FairThreads("downloads", 1)

    async def take() -> list[bytes]:
        return [piece async for piece in pieces(io.BytesIO(b"short"), ByteRange(0, 10), Sending(threads, 4))]

    with pytest.raises(EOFError):
        asyncio.run(take())
