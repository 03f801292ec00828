"""Which Host and Origin a service without keys answers."""

import pytest

from tests.unit.core.conftest import MakeClient

ALLOWED = ["127.0.0.1", "127.0.0.1:80", "127.9.9.9", "localhost", "LOCALHOST:1", "localhost.", "[::1]", "[::1]:80"]
CONFIGURED = ["annotate.example", "Annotate.Example:8443", "10.0.0.7", "[2001:db8::1]:80"]
HOSTS = " annotate.example:8443,http://10.0.0.7/ , [2001:DB8::1]"
FOREIGN = [
    "evil.example",
    "evil.example:8080",
    "127.0.0.1.evil.example",
    "localhost.evil.example",
    "sub.annotate.example",
    "evil.example@127.0.0.1.evil.example",
    "0.0.0.0",  # noqa: S104 - as a client sends it
    "10.0.0.8",
    "[::2]",
    "[",
    "",
    "a" * 5000,
    "\xff",
]


@pytest.mark.parametrize("host", ALLOWED + CONFIGURED)
def test_this_machine_and_configured_hosts_are_answered(make_client: MakeClient, host: str) -> None:
    client = make_client(HTTP_HOSTS=HOSTS)
    assert client.get("/things", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize("host", FOREIGN)
@pytest.mark.parametrize("path", ["/things", "/healthz", "/metrics", "/docs", "/nothing"])
def test_another_host_is_refused_everywhere(make_client: MakeClient, host: str, path: str) -> None:
    headers = [(b"Host", host.encode("latin-1"))]
    answer = make_client(HTTP_HOSTS=HOSTS).get(path, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (403, "host_not_allowed")
    assert "HTTP_HOSTS" in answer.json()["detail"]
    assert answer.headers["x-request-id"]


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
@pytest.mark.parametrize("origin", ["null", "https://evil.example", "file://", "evil.example", "http://10.0.0.8"])
def test_other_sites_change_nothing(make_client: MakeClient, method: str, origin: str) -> None:
    client = make_client(HTTP_HOSTS=HOSTS)
    answer = client.request(method, "/things", headers={"Host": "localhost", "Origin": origin})
    assert (answer.status_code, answer.json()["code"]) == (403, "origin_not_allowed")
    assert client.get("/things", headers={"Host": "localhost", "Origin": origin}).status_code == 200


@pytest.mark.parametrize("origin", ["http://localhost:9000", "http://127.0.0.1", "https://annotate.example"])
def test_pages_of_our_own_may_write(make_client: MakeClient, origin: str) -> None:
    headers = {"Host": "localhost", "Origin": origin}
    assert make_client(HTTP_HOSTS=HOSTS).post("/things", headers=headers).status_code == 200


def test_where_keys_are_required_any_host_is_answered(make_client: MakeClient) -> None:
    client = make_client(HTTP_HOSTS=HOSTS, require_api_key=True)
    assert client.get("/things", headers={"Host": "evil.example"}).status_code == 200
    assert client.post("/things", headers={"Host": "ingestion", "Origin": "null"}).status_code == 200
