"""A cached response equals a new one."""

from typing import Any

import pytest
from prometheus_client import REGISTRY
from starlette.testclient import TestClient

from tests.integration.serving_api.conftest import Serve, World
from tests.integration.serving_api.labelling import Labeller, wait_until

PATHS = [
    "/texts",
    "/texts?limit=1",
    "/texts?limit=1&label=toxic&order=oldest",
    "/toxic_texts?limit=1",
    "/disputed",
]
_VOLATILE = {"x-request-id", "x-replica-age"}


def _hits() -> float:
    return REGISTRY.get_sample_value("serving_answer_cache_lookups_total", {"result": "hit"}) or 0


def _shown(answer: Any) -> tuple[int, bytes, dict[str, str]]:
    headers = {name: value for name, value in answer.headers.items() if name not in _VOLATILE}
    return answer.status_code, answer.content, headers


@pytest.fixture(scope="module")
def client(shared: World) -> TestClient:
    return shared.client


@pytest.fixture(scope="module")
def texts(shared: World) -> list[str]:
    ids = [str(shared.labeller.add_label(f"text {number}")) for number in range(3)]
    shared.labeller.wait_for(shared.replica)
    return ids


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_second_answer_is_the_first_one(client: TestClient, texts: list[str], path: str, method: str) -> None:
    first = _shown(client.request(method, path))
    hits = _hits()
    assert _shown(client.request(method, path)) == first
    assert _hits() == hits + 1
    assert first[0] == 200


@pytest.mark.parametrize("path", [*PATHS, "/texts/{id}"])
def test_held_answers_are_not_sent_again(client: TestClient, texts: list[str], path: str) -> None:
    path = path.format(id=texts[0])
    etag = client.get(path).headers["etag"]
    for _ in range(2):
        answer = client.get(path, headers={"If-None-Match": etag})
        assert (answer.status_code, answer.content, answer.headers["etag"]) == (304, b"", etag)
    assert client.get(path, headers={"If-None-Match": '"another"'}).status_code == 200


def test_links_name_the_host_that_was_asked(client: TestClient, texts: list[str]) -> None:
    for host in ("localhost", "127.0.0.2:81"):
        assert f"<http://{host}/texts?" in client.get("/texts?limit=1", headers={"Host": host}).headers["link"]


def test_new_labels_are_seen(serve: Serve, labeller: Labeller) -> None:
    with serve() as client:
        for number in range(2):
            new = labeller.add_label(f"text {number}")
            labeller.wait_for(client.app.state.replica)  # type: ignore[attr-defined]
            for _ in range(3):
                answer = client.get("/texts").json()
                assert answer["items"][0]["id"] == str(new)
                assert answer["total"] == number + 1


def test_each_request_has_its_id_and_its_key_is_checked(serve: Serve) -> None:
    with serve() as client:
        wait_until(lambda: client.get("/texts").status_code == 200)
        for number in range(3):
            answer = client.get("/texts", headers={"X-Request-ID": f"mine-{number}"})
            assert answer.headers.get_list("x-request-id") == [f"mine-{number}"]
        hits = _hits()
        client.app.state.key_ring.required = True  # type: ignore[attr-defined]
        assert client.get("/texts").status_code == 401
        assert _hits() == hits + 1


def test_what_is_not_sent_is_refused_also_where_it_is_ready(client: TestClient, texts: list[str]) -> None:
    client.get("/texts")
    assert client.get("/texts", headers={"Accept": "text/csv"}).status_code == 406
    assert client.post("/texts").status_code == 405
    assert client.get("/texts?limit=0").status_code == 422
