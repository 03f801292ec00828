"""Which web pages may read the APIs from other origins."""

import pytest
from pydantic import ValidationError

from core.settings import HttpSettings
from tests.unit.core.conftest import MakeClient

PAGE = "https://dashboard.example"
FOREIGN = "https://evil.example"
ASKS = {"Host": "localhost", "Access-Control-Request-Method": "POST"}


@pytest.mark.parametrize("require_api_key", [True, False])
def test_allowed_pages_may_send_and_read(make_client: MakeClient, require_api_key: bool) -> None:
    client = make_client(HTTP_CORS_ORIGINS=f"{PAGE}, http://localhost:8080", require_api_key=require_api_key)
    headers = ASKS | {"Origin": PAGE, "Access-Control-Request-Headers": "authorization,last-event-id"}
    asked = client.options("/things", headers=headers)
    assert asked.status_code == 200
    assert asked.headers["access-control-allow-origin"] == PAGE
    assert "POST" in asked.headers["access-control-allow-methods"]
    for method, path, status in (("GET", "/things", 200), ("POST", "/things", 200), ("DELETE", "/nothing", 404)):
        response = client.request(method, path, headers={"Host": "localhost", "Origin": PAGE})
        assert response.status_code == status
        assert response.headers["access-control-allow-origin"] == PAGE
        exposed = response.headers["access-control-expose-headers"].split(", ")
        assert {"ETag", "Link", "Accept-Ranges", "Content-Range", "X-Replica-Version"} <= {*exposed}
        assert "access-control-allow-credentials" not in response.headers


@pytest.mark.parametrize("origin", [FOREIGN, "null", f"{PAGE}.evil.example", "http://dashboard.example"])
def test_other_pages_may_not(make_client: MakeClient, origin: str) -> None:
    client = make_client(HTTP_CORS_ORIGINS=PAGE)
    asked = client.options("/things", headers=ASKS | {"Origin": origin})
    assert (asked.status_code, asked.json()["code"]) == (403, "origin_not_allowed")
    assert "access-control-allow-origin" not in asked.headers
    response = client.get("/things", headers={"Host": "localhost", "Origin": origin})
    assert "access-control-allow-origin" not in response.headers
    assert client.post("/things", headers={"Host": "localhost", "Origin": origin}).status_code == 403


def test_without_the_setting_no_page_may(make_client: MakeClient) -> None:
    client = make_client(HTTP_CORS_ORIGINS="")
    assert client.options("/things", headers=ASKS | {"Origin": PAGE}).status_code == 405
    response = client.get("/things", headers={"Host": "localhost", "Origin": PAGE})
    assert not [name for name in response.headers if name.startswith("access-control")]


def test_an_unknown_header_is_refused_as_a_problem(make_client: MakeClient) -> None:
    headers = ASKS | {"Origin": PAGE, "Access-Control-Request-Headers": "x-unknown"}
    asked = make_client(HTTP_CORS_ORIGINS=PAGE).options("/things", headers=headers)
    assert (asked.status_code, asked.json()["code"]) == (400, "cors_refused")


@pytest.mark.parametrize("origins", ["*", "example.com", "https://a.example/page", f"{PAGE},file://x"])
def test_what_is_no_origin_is_refused_as_a_setting(monkeypatch: pytest.MonkeyPatch, origins: str) -> None:
    monkeypatch.setenv("HTTP_CORS_ORIGINS", origins)
    with pytest.raises(ValidationError, match="is no origin"):
        HttpSettings()
