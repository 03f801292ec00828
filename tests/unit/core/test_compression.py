"""JSON is compressed for who asks; ETags, HEAD and 304 stay right."""

import gzip
import json
from collections.abc import Callable
from typing import Any

import pytest
from backports import zstd
from fastapi import FastAPI, Request, Response
from fastapi.testclient import TestClient
from starlette.responses import StreamingResponse

from core.web.negotiation import LEAST_BYTES, Compression, Router, choose_coding

BIG = json.dumps({"items": ["a labelled text"] * 200}).encode()
HUGE = json.dumps({"items": ["a labelled text"] * 20_000}).encode()
SMALL = b"{}".ljust(LEAST_BYTES - 1)
ETAG = '"5f0c"'
DECODE: dict[str, Callable[[bytes], bytes]] = {"gzip": gzip.decompress, "zstd": zstd.decompress}


@pytest.fixture
def client() -> TestClient:
    app = FastAPI()
    router = Router()
    app.state.made = 0

    async def page(request: Request) -> Response:
        app.state.made += 1
        if ETAG in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers={"ETag": ETAG})
        body = {"big": BIG, "huge": HUGE, "small": SMALL}[request.query_params.get("size", "big")]
        headers = {"ETag": request.query_params.get("etag", ETAG), "Vary": "Accept"}
        return Response(body, media_type=request.query_params.get("kind", "application/json"), headers=headers)

    async def stream() -> Response:
        return StreamingResponse(iter([BIG, BIG]), media_type="application/json")

    router.add_api_route("/page", page)
    router.add_api_route("/stream", stream)
    app.include_router(router)
    app.add_middleware(Compression)
    return TestClient(app)


def _ask(client: TestClient, path: str, method: str = "GET", **headers: str) -> tuple[Any, bytes]:
    """Return a response and its body as it was sent."""
    named = {"accept-encoding": ""} | {name.replace("_", "-"): value for name, value in headers.items()}
    with client.stream(method, path, headers=named) as response:
        return response, b"".join(response.iter_raw())


@pytest.mark.parametrize("coding", DECODE)
@pytest.mark.parametrize(("size", "body"), [("big", BIG), ("huge", HUGE)])
def test_a_page_is_compressed_as_asked_also_when_sent_again(
    client: TestClient, coding: str, size: str, body: bytes
) -> None:
    for _ in range(2):
        response, raw = _ask(client, f"/page?size={size}", accept_encoding=coding)
        assert response.headers["content-encoding"] == coding
        assert len(raw) == int(response.headers["content-length"]) < len(body) / 4
        assert DECODE[coding](raw) == body
        assert response.headers["etag"] == f"W/{ETAG}"
        assert response.headers.get_list("vary") == ["Accept, Accept-Encoding"]


def test_bodies_with_other_etags_are_others(client: TestClient) -> None:
    for etag, size, body in (('"1"', "big", BIG), ('"2"', "huge", HUGE)):
        _, raw = _ask(client, f"/page?size={size}&etag={etag}", accept_encoding="gzip")
        assert gzip.decompress(raw) == body


@pytest.mark.parametrize("coding", DECODE)
def test_head_says_what_get_would(client: TestClient, coding: str) -> None:
    response, _ = _ask(client, "/page", accept_encoding=coding)
    head, _ = _ask(client, "/page", "HEAD", accept_encoding=coding)
    assert dict(head.headers) == dict(response.headers)


@pytest.mark.parametrize(
    ("path", "accept_encoding"),
    [
        ("/page", ""),
        ("/page", "identity"),
        ("/page", "br"),
        ("/page", "gzip;q=0"),
        ("/page", "identity, gzip;q=0.5"),
        ("/page?size=small", "gzip"),
    ],
)
def test_it_is_left_alone_where_nobody_asks_or_it_is_small(
    client: TestClient, path: str, accept_encoding: str
) -> None:
    response, raw = _ask(client, path, accept_encoding=accept_encoding)
    assert "content-encoding" not in response.headers
    assert raw == (SMALL if "small" in path else BIG)
    assert response.headers["etag"] == ETAG
    # Caches must know that others get other bytes.
    assert response.headers.get_list("vary") == ["Accept, Accept-Encoding"]


def test_other_media_types_and_streams_are_left_alone(client: TestClient) -> None:
    response, raw = _ask(client, "/page?kind=application/vnd.apache.parquet", accept_encoding="gzip")
    assert (raw, response.headers["etag"], response.headers["vary"]) == (BIG, ETAG, "Accept")
    _, raw = _ask(client, "/stream", accept_encoding="gzip")
    assert raw == BIG + BIG


def test_a_304_names_the_etag_that_the_client_holds(client: TestClient) -> None:
    for held in (ETAG, f"W/{ETAG}"):
        response, raw = _ask(client, "/page", accept_encoding="gzip", if_none_match=held)
        assert (response.status_code, raw, response.headers["etag"]) == (304, b"", held)


@pytest.mark.parametrize(
    ("accept_encoding", "coding"),
    [
        ("", ""),
        ("gzip, deflate, br, zstd", "zstd"),
        ("gzip", "gzip"),
        ("GZIP;q=1.0, zstd;q=0.5", "gzip"),
        ("*", "zstd"),
        ("*;q=0", ""),
        ("zstd;q=0, *", "gzip"),
        ("gzip;q=a", ""),
        ("gzip;q=0.5, identity;q=0.6", ""),
    ],
)
def test_the_preferred_coding_is_chosen(accept_encoding: str, coding: str) -> None:
    assert choose_coding(accept_encoding) == coding
