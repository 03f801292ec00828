"""Which web pages may read the APIs from other origins."""

from collections.abc import Callable

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from pydantic import ValidationError

from core.settings import AccessSettings, HttpSettings
from core.web.app import install_web
from core.web.server import http_settings

PAGE = "https://dashboard.example"
FOREIGN = "https://evil.example"
ASKS = {"Host": "localhost", "Access-Control-Request-Method": "POST"}


@pytest.fixture
def make_client(monkeypatch: pytest.MonkeyPatch) -> Callable[..., TestClient]:
    http_settings.cache_clear()
    monkeypatch.setattr("core.web.app.http_settings", http_settings.__wrapped__)

    def make(origins: str, *, require_api_key: bool = False) -> TestClient:
        monkeypatch.setenv("HTTP_CORS_ORIGINS", origins)
        app = FastAPI()

        async def things() -> str:
            return "done"

        for method in ("GET", "POST"):
            app.add_api_route("/things", things, methods=[method], name=method)
        install_web(app, {}, AccessSettings(require_api_key=require_api_key))
        return TestClient(app)

    return make


@pytest.mark.parametrize("require_api_key", [True, False])
def test_allowed_pages_may_send_and_read(make_client: Callable[..., TestClient], require_api_key: bool) -> None:
    client = make_client(f"{PAGE}, http://localhost:8080", require_api_key=require_api_key)
    headers = ASKS | {"Origin": PAGE, "Access-Control-Request-Headers": "authorization,last-event-id"}
    asked = client.options("/things", headers=headers)
    assert asked.status_code == 200
    assert asked.headers["access-control-allow-origin"] == PAGE
    assert "POST" in asked.headers["access-control-allow-methods"]
    for method in ("GET", "POST", "DELETE"):
        response = client.request(method, "/things", headers={"Host": "localhost", "Origin": PAGE})
        assert response.status_code == (405 if method == "DELETE" else 200)
        assert response.headers["access-control-allow-origin"] == PAGE
        exposed = response.headers["access-control-expose-headers"].split(", ")
        assert {"ETag", "Link", "Accept-Ranges", "Content-Range", "X-Replica-Version"} <= {*exposed}
        assert "access-control-allow-credentials" not in response.headers


@pytest.mark.parametrize("origin", [FOREIGN, "null", f"{PAGE}.evil.example", "http://dashboard.example"])
def test_other_pages_may_not(make_client: Callable[..., TestClient], origin: str) -> None:
    client = make_client(PAGE)
    asked = client.options("/things", headers=ASKS | {"Origin": origin})
    assert (asked.status_code, asked.json()["code"]) == (403, "origin_not_allowed")
    assert "access-control-allow-origin" not in asked.headers
    response = client.get("/things", headers={"Host": "localhost", "Origin": origin})
    assert "access-control-allow-origin" not in response.headers
    assert client.post("/things", headers={"Host": "localhost", "Origin": origin}).status_code == 403


def test_without_the_setting_no_page_may(make_client: Callable[..., TestClient]) -> None:
    client = make_client("")
    assert client.options("/things", headers=ASKS | {"Origin": PAGE}).status_code == 405
    response = client.get("/things", headers={"Host": "localhost", "Origin": PAGE})
    assert not [name for name in response.headers if name.startswith("access-control")]


def test_an_unknown_header_is_refused_as_a_problem(make_client: Callable[..., TestClient]) -> None:
    headers = ASKS | {"Origin": PAGE, "Access-Control-Request-Headers": "x-unknown"}
    asked = make_client(PAGE).options("/things", headers=headers)
    assert (asked.status_code, asked.json()["code"]) == (400, "cors_refused")


@pytest.mark.parametrize("origins", ["*", "example.com", "https://a.example/page", f"{PAGE},file://x"])
def test_what_is_no_origin_is_refused_as_a_setting(monkeypatch: pytest.MonkeyPatch, origins: str) -> None:
    monkeypatch.setenv("HTTP_CORS_ORIGINS", origins)
    with pytest.raises(ValidationError, match="is no origin"):
        HttpSettings()
