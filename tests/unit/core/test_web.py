"""What the APIs share over HTTP."""

from collections.abc import Iterator

import pytest
from fastapi import FastAPI, Request, Response
from fastapi.testclient import TestClient
from pydantic import SecretStr
from structlog.testing import capture_logs

from core.settings import AccessSettings
from core.web.app import PlainRoute, install_web
from core.web.health import Check, NotReady
from core.web.problems import NotFound, quoted


async def _fails() -> None:
    raise ConnectionError("connection refused\nat some place")


async def _leaks() -> None:
    said = 'FATAL:  password authentication failed for user "app"'
    raise OSError(f'connection to server at "10.1.2.3", port 5432 failed: {said}')


async def _breaks() -> None:
    raise ValueError("postgresql://app:hunter2@db.internal:5432/annotations")


async def _lacks() -> None:
    raise NotReady("the schema is behind: run python -m core.migrate")


async def _works() -> None:
    return


@pytest.fixture
def client() -> Iterator[TestClient]:
    app = FastAPI()
    checks: dict[str, Check] = {
        "database": _fails,
        "login": _leaks,
        "address": _breaks,
        "schema": _lacks,
        "disk": _works,
    }
    install_web(app, checks)

    @app.get("/missing")
    async def missing() -> None:
        raise NotFound("There is no such thing.")

    @app.get("/crash")
    async def crash() -> None:
        raise RuntimeError("the password is hunter2")

    @app.get("/number")
    async def number(n: int) -> int:
        return n

    with TestClient(app, raise_server_exceptions=False) as client:
        yield client


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/missing", 404, "not_found"),
        ("GET", "/nowhere", 404, "not_found"),
        ("POST", "/missing", 405, "method_not_allowed"),
        ("GET", "/number?n=x", 422, "invalid_fields"),
        ("GET", "/crash", 500, "internal_error"),
    ],
)
def test_every_refusal_is_a_problem(client: TestClient, method: str, path: str, status: int, code: str) -> None:
    answer = client.request(method, path)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert {"type", "title", "status", "detail", "code"} <= problem.keys()
    assert (problem["status"], problem["code"]) == (status, code)


def test_a_plain_route_answers_and_refuses_as_other_routes_do() -> None:
    async def answer(request: Request) -> Response:
        match (await request.body()).decode():
            case "missing":
                raise NotFound("There is no such thing.")
            case "crash":
                raise RuntimeError("the password is hunter2")
            case said:
                return Response(said, headers={"Location": request.url.path})

    app = FastAPI()
    app.router.add_api_route("/echo", answer, methods=["POST"], route_class_override=PlainRoute)
    install_web(app, {})
    with TestClient(app, raise_server_exceptions=False) as client:
        echoed = client.post("/echo", content="hello")
        assert (echoed.status_code, echoed.text, echoed.headers["location"]) == (200, "hello", "/echo")
        refused = {said: client.post("/echo", content=said) for said in ("missing", "crash")}
        assert [one.json()["code"] for one in refused.values()] == ["not_found", "internal_error"]
        assert [one.status_code for one in refused.values()] == [404, 500]
        assert "hunter2" not in refused["crash"].text
        assert client.get("/echo").json()["code"] == "method_not_allowed"
        assert client.post("/echo", headers={"Accept": "text/html"}).status_code == 406
        assert 'method="POST",route="/echo",status="404"' in client.get("/metrics").text


def test_a_crash_tells_the_client_nothing(client: TestClient) -> None:
    assert "hunter2" not in client.get("/crash").text


def test_a_wrong_parameter_is_named(client: TestClient) -> None:
    assert client.get("/number?n=x").json()["errors"][0]["parameter"] == "n"


def test_a_request_id_comes_back(client: TestClient) -> None:
    assert client.get("/healthz", headers={"X-Request-ID": "abc-1"}).headers["x-request-id"] == "abc-1"


@pytest.mark.parametrize("given", ["", "with space", "x" * 129])
def test_an_unfit_request_id_is_replaced(client: TestClient, given: str) -> None:
    assert client.get("/healthz", headers={"X-Request-ID": given}).headers["x-request-id"] != given


def test_readiness_names_what_is_missing_and_why_without_addresses_and_names(client: TestClient) -> None:
    with capture_logs() as logs:
        answer = client.get("/readyz")
        client.get("/readyz")
    assert answer.status_code == 503
    missing = {
        "database": "connection refused",
        "login": "wrong password",
        "address": "it failed (ValueError): see the log",
        "schema": "the schema is behind: run python -m core.migrate",
    }
    assert answer.json() == {"status": "missing", "missing": missing}
    logged = [entry for entry in logs if entry["event"] == "readiness.missing"]
    assert [entry["need"] for entry in logged] == list(missing)  # once, not for each probe
    assert "10.1.2.3" in logged[1]["error"]


def test_metrics_count_by_route_not_by_path(client: TestClient) -> None:
    client.get("/number?n=1")
    client.get("/nowhere/secret-id")
    metrics = client.get("/metrics").text
    assert 'route="/number"' in metrics
    assert "secret-id" not in metrics


def test_methods_that_clients_invent_are_one(client: TestClient) -> None:
    for method in ("BREW", "WHEN"):
        client.request(method, "/number")
    metrics = client.get("/metrics").text
    assert 'method="other"' in metrics
    assert "BREW" not in metrics


@pytest.mark.parametrize(
    ("authorization", "status"),
    [
        ("Bearer 0123456789abcdef", 200),
        ("bearer  0123456789abcdef ", 200),
        ("Bearer 0123456789abcdeF", 401),
        ("Basic 0123456789abcdef", 401),
        ("Bearer", 401),
        ("Bearer \u00e9", 401),
        (None, 401),
    ],
)
def test_metrics_may_ask_for_a_token(authorization: str | None, status: int) -> None:
    app = FastAPI()
    install_web(app, {}, AccessSettings(metrics_token=SecretStr("0123456789abcdef")))
    headers = {b"Authorization": authorization.encode("latin-1")} if authorization else {}
    with TestClient(app) as client:
        answer = client.get("/metrics", headers=headers)
        assert answer.status_code == status
        assert client.get("/healthz").status_code == 200
        assert "401" in client.get("/openapi.json").json()["paths"]["/metrics"]["get"]["responses"]
    if status != 200:
        assert answer.headers["www-authenticate"] == "Bearer"
        assert answer.json()["code"] == "missing_key"


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("toxc", '"toxc"'),
        ("ä", '"ä"'),
        ("a\0b", '"a\\u0000b"'),  # Postgres stores no NUL
        ('a"\n', '"a\\"\\n"'),
        ("\ud800", '"?"'),  # a lone surrogate is not UTF-8
        ("a" * 101, f'"{"a" * 100}…"'),
    ],
)
def test_a_quoted_value_can_be_sent_and_stored(value: str, shown: str) -> None:
    assert quoted(value) == shown
