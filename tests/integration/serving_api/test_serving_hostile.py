"""What clients send wrongly is refused with its name, and never a 500."""

from base64 import urlsafe_b64decode, urlsafe_b64encode

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient

from serving_api.texts.parameters import TextsParameters
from tests.integration.serving_api.conftest import World

WRONG = {
    "unknown": ("x=1", "x"),
    "unknown in another case": ("Limit=1", "Limit"),
    "limit beyond": ("limit=1001", "limit"),
    "limit huge": ("limit=" + "9" * 5000, "limit"),
    "status": ("status=withdrawn", "status"),
    "label": ("label=toxic&label=angry", "label"),
    "label with NUL": ("label=a%00", "label"),
    "dataset with NUL": ("dataset=%00", "dataset"),
    "source with NUL": ("source=a%00b", "source"),
    "source twice": ("source=a&source=b", "source"),
    "source huge": ("source=" + "a" * 2000, "source"),
    "annotator with NUL": ("annotator=%00", "annotator"),
    "q with NUL": ("q=%00", "q"),
    "q empty": ("q=", "q"),
    "q huge": ("q=" + "a" * 20000, "q"),
    "agreement above": ("min_agreement=1.1", "min_agreement"),
    "agreement not a number": ("min_agreement=nan", "min_agreement"),
    "agreement infinite": ("min_agreement=-inf", "min_agreement"),
    "annotations negative": ("min_annotations=-1", "min_annotations"),
    "annotations huge": ("min_annotations=99999999999999999999", "min_annotations"),
    "time as number": ("labelled_after=1700000000", "labelled_after"),
    "time as fraction": ("labelled_after=1700000000.5", "labelled_after"),
    "time infinite": ("labelled_after=inf", "labelled_after"),
    "time before year 1": ("labelled_before=0001-01-01T00:00:00%2B23:00", "labelled_before"),
    "time after year 9999": ("labelled_before=9999-12-31T23:59:59-23:00", "labelled_before"),
    "cursor": ("cursor=abc", "cursor"),
    "cursor empty": ("cursor=", "cursor"),
    "cursor not ASCII": ("cursor=%C3%A4", "cursor"),
    "cursor huge": ("cursor=" + "A" * 5000, "cursor"),
    "cursor with NUL": ("cursor=%00", "cursor"),
}

WRONG_CHANGES = {
    "unknown": ("cursor=x", "cursor"),
    "label": ("label=toxic", "label"),  # a text that gets another label would have to be a delete
    "since negative": ("since=-1", "since"),
    "since of text": ("since=now", "since"),
    "since empty": ("since=", "since"),
    "since a fraction": ("since=1.5", "since"),
    "since beyond": (f"since={2**63}", "since"),
    "since huge": ("since=" + "9" * 5000, "since"),
    "since twice": ("since=1&since=2", "since"),
    "limit of zero": ("limit=0", "limit"),
    "limit beyond": ("limit=1001", "limit"),
    "wait negative": ("wait=-1", "wait"),
    "wait beyond": ("wait=60.1", "wait"),
    "wait not a number": ("wait=nan", "wait"),
    "wait infinite": ("wait=inf", "wait"),
    "wait twice": ("wait=1&wait=1", "wait"),
    "dataset": ("dataset=other", "dataset"),
    "dataset with NUL": ("dataset=%00", "dataset"),
    "feed": ("feed=x", "feed"),
    "feed with a line end": ("feed=9f86d081884c7d65%0A", "feed"),
}


@pytest.fixture(scope="module")
def ready(shared: World) -> TestClient:
    for word in "abc":
        shared.labeller.add_label(word)
    shared.labeller.wait_for(shared.replica)
    return shared.client


def test_wrong_parameters_are_named(ready: TestClient) -> None:
    for case, (query, parameter) in WRONG.items():
        answer = ready.get(f"/texts?{query}")
        assert answer.status_code == 422, case
        assert answer.headers["content-type"] == "application/problem+json", case
        assert answer.json()["errors"][0]["parameter"] == parameter, case


@pytest.mark.parametrize("accept", ["*/*", "text/event-stream"])
def test_wrong_parameters_of_changes_are_named(ready: TestClient, accept: str) -> None:
    for case, (query, parameter) in WRONG_CHANGES.items():
        answer = ready.get(f"/changes?{query}", headers={"Accept": accept})
        assert answer.status_code == 422, case
        assert answer.headers["content-type"] == "application/problem+json", case
        assert answer.json()["errors"][0]["parameter"] == parameter, case


@pytest.mark.parametrize("value", ["x", "-1", "1.5", str(2**63), "9" * 5000, "1, 2"])
def test_a_wrong_last_event_id_is_named(ready: TestClient, value: str) -> None:
    answer = ready.get("/changes", headers={"Accept": "text/event-stream", "Last-Event-ID": value})
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["parameter"] == "Last-Event-ID"


def test_every_wrong_parameter_is_named(ready: TestClient) -> None:
    errors = ready.get("/texts?limit=0&order=x&y=1").json()["errors"]
    assert {error["parameter"] for error in errors} == {"limit", "order", "y"}
    assert ready.get("/texts/17").json()["detail"] == "id must be a UUID (got 17)."


@pytest.mark.parametrize("path", ["/texts?q=%ff", "/texts?source=%ed%a0%80", "/texts?%c3=1"])
def test_bad_utf8_is_malformed(ready: TestClient, path: str) -> None:
    answer = ready.get(path)
    assert (answer.status_code, answer.json()["code"]) == (400, "malformed_query")


@pytest.mark.parametrize("id_", ["x", "%00", "%ff", "1" * 5000, "5f0c6f5e-3c1b-8a43-9d8e-0b6a4b8f2d1"])
def test_bad_id_is_named(ready: TestClient, id_: str) -> None:
    answer = ready.get(f"/texts/{id_}")
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["parameter"] == "id"


@pytest.mark.parametrize(
    ("path", "parameter"),
    [("/stats?x=1", "x"), (f"/texts/{'0' * 32}?x=1", "x"), ("/stats?dataset=a&dataset=b", "dataset")],
)
def test_other_paths_are_as_strict(ready: TestClient, path: str, parameter: str) -> None:
    answer = ready.get(path)
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["parameter"] == parameter


def test_cursor_of_another_list_is_refused(ready: TestClient) -> None:
    cursor = ready.get("/texts?limit=1").json()["next_cursor"]
    assert ready.get(f"/texts?limit=2&cursor={cursor}").status_code == 200
    for query in ("order=oldest", "label=toxic", "q=a", "min_agreement=0", "labelled_after=2020-01-01"):
        answer = ready.get(f"/texts?limit=1&cursor={cursor}&{query}")
        assert answer.status_code == 409, query
        assert answer.json()["errors"][0] | {"detail": ""} == {
            "parameter": "cursor",
            "code": "invalid_cursor",
            "detail": "",
        }


def test_changed_cursor_is_refused(ready: TestClient) -> None:
    cursor = ready.get("/texts?limit=1").json()["next_cursor"]
    raw = urlsafe_b64decode(cursor + "=")
    for position in range(len(raw)):
        changed = bytearray(raw)
        changed[position] ^= 1
        answer = ready.get("/texts", params={"cursor": urlsafe_b64encode(changed).decode().rstrip("=")})
        assert (answer.status_code, answer.json()["code"]) == (409, "invalid_cursor")


def test_methods_and_paths_that_are_not_there(ready: TestClient) -> None:
    for method, path, status in (("POST", "/texts", 405), ("GET", "/angry_texts", 404), ("GET", "/texts/", 404)):
        answer = ready.request(method, path)
        assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")


def test_nothing_a_client_sends_is_a_500(ready: TestClient) -> None:
    names = st.sampled_from([*TextsParameters.model_fields])
    values = (
        st.text() | st.integers().map(str) | st.floats().map(str) | st.datetimes().map(str) | st.binary().map(str)
    )

    @settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.lists(st.tuples(names | st.text(), values), max_size=4))
    def check(parameters: list[tuple[str, str]]) -> None:
        encodable = [(n.encode("utf-8", "replace"), v.encode("utf-8", "replace")) for n, v in parameters]
        answer = ready.get("/texts", params=[(n.decode(), v.decode()) for n, v in encodable])
        assert answer.status_code in {200, 400, 422}

    check()


def test_nothing_a_follower_sends_is_a_500(ready: TestClient) -> None:
    names = st.sampled_from(["since", "limit", "dataset", "feed", "last-event-id"])
    values = st.text() | st.integers().map(str) | st.floats().map(str) | st.binary().map(str)

    @settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.lists(st.tuples(names, values), max_size=4))
    def check(parameters: list[tuple[str, str]]) -> None:
        answer = ready.get("/changes", params=[(n, v.encode("utf-8", "replace").decode()) for n, v in parameters])
        assert answer.status_code in {200, 409, 422}

    check()


def test_hostile_headers_do_no_harm(ready: TestClient) -> None:
    for value in ('"', "W/", '"a', ",,,", "*, *", "\x7f" * 100, '"' * 8000):
        assert ready.get("/texts", headers={"If-None-Match": value}).status_code == 200
