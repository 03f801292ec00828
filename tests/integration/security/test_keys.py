"""Who has no key, or a wrong one, gets nowhere: at every endpoint of both APIs."""

import re
from functools import partial
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from core.datasets import load_datasets
from core.settings import AccessSettings, DatabaseSettings, DatasetsFileSettings
from ingestion_api.main import create_app as create_ingestion
from ingestion_api.settings import IngestionSettings
from serving_api.main import create_app as create_serving
from serving_api.settings import DataSettings, ReplicaSettings, ServingSettings
from tests.integration.security.conftest import Guarded, add_key, exchange
from tests.programs import Program
from tests.waiting import wait_for

# What answers without a key, by name: nothing of a text or a label is in it.
OPEN = {"GET /", "GET /healthz", "GET /readyz", "GET /metrics", "POST /webhooks/argilla"}
DISCOVERY = {"GET /$discovery/rest", "GET /discovery/v1/apis/commentanalyzer/v1alpha1/rest"}
OPEN |= DISCOVERY
PAGES = {
    "/docs",
    "/docs/oauth2-redirect",
    "/redoc",
    "/openapi.json",
    "/static-offline-docs",
    "/static/shared",
    "/static",
}
# What a key with the scope `read` may not do.
CLOSED_TO_READERS = {
    "POST /snapshots",
    "POST /snapshots/{name}/rewrite",
    "DELETE /snapshots/{name}",
    "GET /forgotten",
}
ID = "5f3c1f7e-8a6f-8c15-9d3e-0b1f6a4f2d11"


def operations(program: Program) -> list[tuple[str, str]]:
    document = httpx.get(f"{program.url}/openapi.json").json()
    return [(method.upper(), path) for path, methods in document["paths"].items() for method in methods]


def fill_in(path: str) -> str:
    return re.sub(r"\{[^}]*\}", ID, path)


@pytest.mark.parametrize("api", ["ingestion", "serving"])
def test_every_endpoint_wants_a_key_of_its_scope(guarded: Guarded, api: str) -> None:
    program: Program = getattr(guarded, api)
    listed = operations(program)
    assert len(listed) > 8
    wrong = guarded.headers("read" if api == "ingestion" else "ingest")
    with httpx.Client(base_url=program.url, timeout=30) as client:
        for method, path in listed:
            name, address = f"{method} {path}", fill_in(path)
            methods = [method, "HEAD"] if method == "GET" else [method]
            if name in OPEN:
                continue
            for each in methods:
                assert client.request(each, address).status_code == 401, (each, path)
                assert client.request(each, address, headers=wrong).status_code == 403, (each, path)
            if method != "HEAD":
                refused = client.request(method, address).json()
                if path.startswith("/v1alpha1/"):  # Perspective's API, in Google's shape
                    assert refused["error"]["details"][0]["reason"] == "MISSING_KEY", (method, path)
                else:
                    assert refused["code"] == "missing_key", (method, path)
            if name in CLOSED_TO_READERS:
                assert client.request(method, address, headers=guarded.headers("read")).status_code == 403
            answer = client.request(method, address, headers=guarded.headers("admin"))
            assert answer.status_code not in {401, 403}, (method, path)


@pytest.mark.parametrize("api", ["ingestion", "serving"])
def test_what_is_open_is_open_and_named(guarded: Guarded, api: str) -> None:
    program: Program = getattr(guarded, api)
    for method, path in operations(program):
        if f"{method} {path}" in OPEN and method == "GET":
            assert httpx.get(program.url + path).status_code == 200


def _paths(routes: list[Any]) -> set[str]:
    found: set[str] = set()
    for route in routes:
        inner = getattr(route, "original_router", None)
        found |= _paths(inner.routes) if inner is not None else {route.path}
    return found


def test_no_path_is_hidden_from_the_documents() -> None:
    """Else the tests above would not see it."""
    database = DatabaseSettings(url=SecretStr("postgresql://nobody@127.0.0.1:1/none"))
    ingestion = create_ingestion(IngestionSettings(), database, AccessSettings(), DatasetsFileSettings())
    serving = create_serving(
        ServingSettings(), ReplicaSettings(), DataSettings(), database, AccessSettings(), load_datasets(None)
    )
    for app in (ingestion, serving):
        paths = _paths(list(app.routes))
        assert len(paths) > 10
        assert paths - set(app.openapi()["paths"]) == PAGES


@pytest.mark.parametrize(
    "header",
    [
        b"Authorization: Bearer ap_wrong",
        b"Authorization: Bearer",
        b"Authorization:",
        b"Authorization: Basic YTpi",
        b"Authorization: Bearer \xff\xfe",
        b"Authorization: Bearer " + b"a" * 60_000,
        b"Authorization: %b",
        b"X-Authorization: Bearer %b",
        b"Authorization: Bearer x\r\nAuthorization: Bearer %b",
        b"Authorization: Bearer %b, Bearer x",
        b"Authorization: Bearer %bx",
    ],
)
def test_a_malformed_key_is_none(guarded: Guarded, header: bytes) -> None:
    header = header.replace(b"%b", guarded.keys["admin"].encode())
    for program, path in ((guarded.ingestion, b"/queue"), (guarded.serving, b"/texts")):
        request = b"GET %b HTTP/1.1\r\nHost: x\r\nConnection: close\r\n%b\r\n\r\n" % (path, header)
        answer = exchange(program, request)
        assert answer.startswith(b"HTTP/1.1 401 "), answer
        assert b"www-authenticate: Bearer" in answer


def test_a_header_behind_the_body_is_no_key(guarded: Guarded) -> None:
    """All of it may be there before the application looks."""
    head = b"POST /texts HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\n"
    body = b'Transfer-Encoding: chunked\r\n\r\nd\r\n{"text": "a"}\r\n0\r\n'
    trailer = f"Authorization: Bearer {guarded.keys['ingest']}\r\n\r\n".encode()
    assert exchange(guarded.ingestion, head + body + trailer).startswith(b"HTTP/1.1 401 ")


def _is_limited(client: httpx.Client, method: str, address: str, body: dict[str, str] | None) -> bool:
    return client.request(method, address, json=body).status_code == 429


def test_who_sends_too_much_is_told_so_by_both_apis(guarded: Guarded) -> None:
    key = add_key(guarded.database_url, "ingest", "read", requests_per_second=0.01, burst=2)
    headers = {"Authorization": f"Bearer {key}"}
    with httpx.Client(headers=headers, timeout=30) as client:
        text, page = f"{guarded.ingestion.url}/texts", f"{guarded.serving.url}/texts"
        for method, address in (("POST", text), ("GET", page)):
            body = {"text": "limited"} if method == "POST" else None
            wait_for(partial(_is_limited, client, method, address, body))  # known by then, and used up
            refused = client.request(method, address, json=body)
            assert (refused.status_code, refused.json()["code"]) == (429, "rate_limited"), address
            assert 1 <= int(refused.headers["retry-after"]) <= 100
            assert refused.headers["ratelimit-policy"] == '"key";q=2;w=200'
            assert refused.headers["ratelimit"].startswith('"key";r=0;t=')
    # Other keys have no limit, and no headers about limits.
    answer = httpx.get(page, headers=guarded.headers("read"))
    assert answer.status_code == 200
    assert "ratelimit" not in answer.headers


def test_what_is_left_is_told_with_each_answer(guarded: Guarded) -> None:
    key = add_key(guarded.database_url, "read", requests_per_second=0.01, burst=50)
    page, headers = f"{guarded.serving.url}/texts", {"Authorization": f"Bearer {key}"}
    wait_for(lambda: httpx.get(page, headers=headers).status_code == 200)
    left = [httpx.get(page, headers=headers).headers["ratelimit"].split(";")[1] for _ in range(3)]
    assert left == ["r=48", "r=47", "r=46"]
