"""Perspective's API: its clients, recorded requests, its errors, and suggestions that reach the ingestion API."""

import json
import logging
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from googleapiclient import discovery
from googleapiclient.errors import HttpError
from psycopg.rows import dict_row
from starlette.testclient import TestClient

from core.settings import AccessSettings, DatabaseSettings, DatasetsFileSettings
from ingestion_api.main import create_app as create_ingestion
from ingestion_api.settings import IngestionSettings
from tests.integration.security.conftest import add_key
from tests.integration.serving_api.conftest import LOCAL, Serve, World
from tests.integration.serving_api.labelling import wait_until
from tests.integration.serving_api.modelling import store_model, train
from tests.integration.serving_api.served import served

ANALYZE, SUGGEST = "/v1alpha1/comments:analyze", "/v1alpha1/comments:suggestscore"
# As Coral's talk (server/src/core/server/services/perspective) sends it.
CORAL_ANALYZE = {
    "comment": {"text": "You are an idiot"},
    "doNotStore": True,
    "requestedAttributes": {"TOXICITY": {}},
    "languages": ["en"],
}
CORAL_SUGGEST: dict[str, Any] = {
    "comment": {"text": "You stupid fool"},
    "context": {
        "entries": [
            {
                "text": '{"url":"https://news.example/story?commentID=5","reply_to_id_Coral_comment_id":null,'
                '"Coral_comment_id":"5"}'
            }
        ]
    },
    "attributeScores": {"TOXICITY": {"summaryScore": {"value": 1}}},
    "languages": ["en"],
    "communityId": "Coral:https://news.example/",
    "clientToken": "comment:5",
}
# Older versions send the decision as the attribute.
OLDER_CORAL_SUGGEST: dict[str, Any] = CORAL_SUGGEST | {
    "comment": {"text": "You old fool"},
    "attributeScores": {"DELETED": {"summaryScore": {"value": 1}}},
    "languages": ["EN"],
}
NDJSON = {"Content-Type": "application/json"}


@pytest.fixture(scope="module")
def scoring(shared: World) -> World:
    """An application with an active model."""
    store_model(shared.engine, shared.folder / "snapshots", train())
    wait_until(lambda: shared.client.post(ANALYZE, json=CORAL_ANALYZE).status_code == 200)
    return shared


def analyze(world: World, **changes: Any) -> Any:
    return world.client.post(ANALYZE, json=CORAL_ANALYZE | changes).json()


def toxicity(text: str) -> float:
    return float(train().probabilities([text])[0][0])


def test_corals_request_is_scored(scoring: World) -> None:
    answer = scoring.client.post(ANALYZE, json=CORAL_ANALYZE)
    assert answer.status_code == 200
    score = {"value": pytest.approx(toxicity("You are an idiot"), abs=1e-6), "type": "PROBABILITY"}
    assert answer.json() == {"attributeScores": {"TOXICITY": {"summaryScore": score}}, "languages": ["en"]}


def test_perspectives_example_in_python_sends_no_content_type(scoring: World) -> None:
    answer = scoring.client.post(ANALYZE, content=json.dumps(CORAL_ANALYZE).encode())
    assert answer.json() == scoring.client.post(ANALYZE, json=CORAL_ANALYZE).json()
    assert answer.status_code == 200


def test_googles_client_works_with_another_address(scoring: World) -> None:
    with served(scoring.client.app, lifespan="off") as url:
        service = discovery.build(
            "commentanalyzer",
            "v1alpha1",
            developerKey="any",
            discoveryServiceUrl=f"{url}/$discovery/rest?version=v1alpha1",
            static_discovery=False,
        )
        asked = CORAL_ANALYZE | {"clientToken": "17", "spanAnnotations": True}
        answer = service.comments().analyze(body=asked).execute()
        with pytest.raises(HttpError) as refused:
            service.comments().analyze(body=asked | {"comment": {"text": ""}}).execute()
        service.close()
    scores = answer["attributeScores"]["TOXICITY"]
    assert answer["clientToken"] == "17"
    (span,) = scores["spanScores"]
    assert (span["begin"], span["end"], span["score"]) == (0, len("You are an idiot"), scores["summaryScore"])
    assert (refused.value.status_code, refused.value.reason) == (400, "Comment must be non-empty.")


def test_both_addresses_of_the_discovery_document_show_it(scoring: World) -> None:
    first = scoring.client.get("/$discovery/rest?version=v1alpha1").json()
    assert first == scoring.client.get("/discovery/v1/apis/commentanalyzer/v1alpha1/rest").json()
    assert first["rootUrl"] == f"{LOCAL}/"


def test_scores_under_their_threshold_are_left_out(scoring: World) -> None:
    value = toxicity("You are an idiot")
    for threshold, is_shown in ((value - 0.01, True), (value + 0.01, False)):
        answer = analyze(scoring, requestedAttributes={"TOXICITY": {"scoreThreshold": threshold}})
        assert ("attributeScores" in answer) == is_shown


def test_null_and_snake_case_are_read_as_google_reads_them(scoring: World) -> None:
    body = {"comment": {"text": "You are an idiot", "type": None}, "requested_attributes": {"TOXICITY": None}}
    assert scoring.client.post(ANALYZE, json=body).json()["error"]["message"] == "Missing requested_attributes"
    body["requested_attributes"] = {"TOXICITY": {"score_threshold": None}}
    assert "attributeScores" in scoring.client.post(ANALYZE, json=body).json()


@pytest.mark.parametrize(
    ("changes", "message", "kind"),
    [
        ({"comment": {"text": " \n"}}, "Comment must be non-empty.", "COMMENT_EMPTY"),
        ({"comment": {"text": "é" * 40_000}}, "Comment text too long.", "COMMENT_TOO_LONG"),
        ({"comment": {"text": "a\0b"}}, "Comment must not have NUL characters.", "INVALID_REQUEST"),
        ({"requestedAttributes": {}}, "Missing requested_attributes", "NO_REQUESTED_ATTRIBUTES"),
        ({"requestedAttributes": {"X": {}}}, 'Unknown requested attribute: "X"', "INVALID_REQUEST"),
        (
            {"comment": {"text": "a", "type": "HTML"}},
            "Currently, only 'PLAIN_TEXT' comments are supported",
            "INVALID_REQUEST",
        ),
        (
            {"requestedAttributes": {"TOXICITY": {"scoreType": "RAW"}}},
            "Requested score type RAW is not supported by attribute TOXICITY",
            "INVALID_REQUEST",
        ),
        (
            {"comment": {"text": "a", "words": 1}},
            'Invalid JSON payload received. Unknown name "words" at "comment": Cannot find field.',
            "INVALID_REQUEST",
        ),
    ],
)
def test_errors_are_perspectives_own(scoring: World, changes: Any, message: str, kind: str) -> None:
    answer = scoring.client.post(ANALYZE, json=CORAL_ANALYZE | changes)
    detail = {"@type": "type.googleapis.com/google.commentanalyzer.v1alpha1.Error", "errorType": kind}
    expected = {"code": 400, "message": message, "status": "INVALID_ARGUMENT", "details": [detail]}
    assert (answer.status_code, answer.json()) == (400, {"error": expected})


def test_unknown_attributes_can_be_dropped(scoring: World) -> None:
    asked = {"requestedAttributes": {"TOXICITY": {}, "INSULT": {}}, "dropUnsupportedAttributes": True}
    assert analyze(scoring, **asked)["attributeScores"].keys() == {"TOXICITY"}


@pytest.mark.parametrize(
    ("method", "path", "sent", "status", "name"),
    [
        ("POST", ANALYZE, {"content": b"{", "headers": NDJSON}, 400, "INVALID_ARGUMENT"),
        (
            "POST",
            ANALYZE,
            {"content": b'{"comment": {"text": "\\ud800"}}', "headers": NDJSON},
            400,
            "INVALID_ARGUMENT",
        ),
        ("POST", ANALYZE, {"content": b"[" * 100_000, "headers": NDJSON}, 400, "INVALID_ARGUMENT"),
        ("POST", ANALYZE, {"content": b"[" * 1000 + b"]" * 1000, "headers": NDJSON}, 400, "INVALID_ARGUMENT"),
        ("POST", ANALYZE, {"content": b"[]", "headers": NDJSON}, 400, "INVALID_ARGUMENT"),
        ("POST", ANALYZE, {"content": b" " * 2**21, "headers": NDJSON}, 413, "INVALID_ARGUMENT"),
        ("POST", ANALYZE, {"content": b"", "headers": {}}, 400, "INVALID_ARGUMENT"),
        ("POST", ANALYZE, {"content": b"{}", "headers": {"Content-Type": "text/csv"}}, 415, "INVALID_ARGUMENT"),
        ("POST", ANALYZE, {"headers": {"Accept": "text/csv"}}, 406, "INVALID_ARGUMENT"),
        ("GET", ANALYZE, {}, 405, "INVALID_ARGUMENT"),
        ("POST", "/v1alpha1/comments:other", {}, 404, "NOT_FOUND"),
        ("POST", ANALYZE, {"headers": {"Host": "evil.example"}}, 403, "PERMISSION_DENIED"),
        ("POST", SUGGEST, {"json": CORAL_ANALYZE | {"attributeScores": {}}}, 400, "INVALID_ARGUMENT"),
    ],
)
def test_every_error_has_googles_shape(
    scoring: World, method: str, path: str, sent: dict[str, Any], status: int, name: str
) -> None:
    answer = scoring.client.request(method, path, **sent)
    assert answer.status_code == status
    error = answer.json()["error"]
    assert (error["code"], error["status"]) == (status, name)
    assert error["message"]
    assert answer.headers["content-type"] == "application/json; charset=UTF-8"


def test_without_a_model_it_is_unavailable(client: TestClient) -> None:
    wait_until(lambda: client.get("/readyz").status_code == 200)
    answer = client.post(ANALYZE, json=CORAL_ANALYZE)
    assert (answer.status_code, answer.json()["error"]["status"]) == (503, "UNAVAILABLE")
    assert answer.json()["error"]["details"][0]["reason"] == "NO_MODEL"
    assert answer.headers["retry-after"] == "60"


def test_a_key_in_the_address_is_a_key_and_is_not_logged(
    serve: Serve, database: DatabaseSettings, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    key = add_key(database.libpq_url, "read")
    caplog.set_level(logging.DEBUG)
    with serve(require_api_key=True) as client:
        wait_until(lambda: client.get("/readyz").status_code == 200)

        def status(path: str, **headers: str) -> int:
            return client.post(path, json=CORAL_ANALYZE, headers=headers).status_code

        wait_until(lambda: status(f"{ANALYZE}?key={key}") == 503)  # no model
        assert status(f"{ANALYZE}?alt=json&key={key}&prettyPrint=false") == 503
        assert status(ANALYZE, **{"X-Goog-Api-Key": key}) == 503
        assert status(f"{ANALYZE}?key={key}", Authorization="Bearer wrong") == 401
        refused = client.post(f"{ANALYZE}?key=wrong", json=CORAL_ANALYZE)
        assert (refused.status_code, refused.json()["error"]["status"]) == (401, "UNAUTHENTICATED")
        assert status(ANALYZE) == 401
        assert client.get(f"/texts?key={key}").status_code == 401, "other paths take no key in the address"
        suggested = client.post(f"{SUGGEST}?key={key}", json=CORAL_SUGGEST)
        assert (suggested.status_code, suggested.json()["error"]["status"]) == (403, "PERMISSION_DENIED")
    printed = capfd.readouterr()
    said = (
        printed.out
        + printed.err
        + "".join(str(record.msg) for record in caplog.records if "serving" in str(record))
    )
    assert "/v1alpha1/" in said
    assert key not in said


@pytest.fixture
def ingestion(database: DatabaseSettings) -> Iterator[str]:
    """The ingestion API on the same database."""
    app = create_ingestion(
        IngestionSettings(), database, AccessSettings(require_api_key=False), DatasetsFileSettings()
    )
    with served(app) as url:
        yield url


def read_texts(database: DatabaseSettings, text: str) -> list[dict[str, Any]]:
    with psycopg.connect(database.libpq_url, row_factory=dict_row) as connection:
        columns = "claimed_label, score, source, external_id"
        return connection.execute(f"select {columns} from texts where text = %s", [text]).fetchall()  # noqa: S608


def test_corals_feedback_becomes_a_claim(
    serve: Serve, database: DatabaseSettings, ingestion: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PERSPECTIVE_INGESTION_URL", ingestion)
    attributes = "TOXICITY=toxicity.toxic,DELETED=toxicity.toxic,APPROVED=toxicity.non_toxic"
    monkeypatch.setenv("PERSPECTIVE_ATTRIBUTES", attributes)
    with serve() as client:
        for sent, language in ((CORAL_SUGGEST, "en"), (OLDER_CORAL_SUGGEST, "EN")):
            answer = client.post(SUGGEST, json=sent)
            assert answer.json() == {"requestedLanguages": [language], "clientToken": "comment:5"}
            (stored,) = read_texts(database, sent["comment"]["text"])
            assert stored == {
                "claimed_label": "toxic",
                "score": 1,
                "source": "Coral:https://news.example/",
                "external_id": "comment:5",
            }
        low = {"comment": {"text": "How nice"}, "attributeScores": {"TOXICITY": {"summaryScore": {"value": 0.25}}}}
        assert client.post(SUGGEST, json=low).json() == {}
        (stored,) = read_texts(database, "How nice")
        assert (stored["claimed_label"], stored["score"], stored["source"]) == ("non_toxic", 0.75, None)
        # Google's clients leave a zero out.
        approved = CORAL_SUGGEST | {
            "comment": {"text": "Well said"},
            "attributeScores": {"TOXICITY": {"summaryScore": {}}},
        }
        assert client.post(SUGGEST, json=approved).status_code == 200
        (stored,) = read_texts(database, "Well said")
        assert (stored["claimed_label"], stored["score"]) == ("non_toxic", 1)
        # The refusal names the field as the client knows it.
        refused = client.post(SUGGEST, json=low | {"communityId": "a\0b"})
        assert (refused.status_code, refused.json()["error"]["status"]) == (400, "INVALID_ARGUMENT")
        expected = "The ingestion API refuses communityId: must not have NUL characters"
        assert refused.json()["error"]["message"] == expected
        assert client.post(ANALYZE, json=CORAL_ANALYZE).status_code == 503
        assert read_texts(database, "You are an idiot") == [], "what is analyzed is never stored"


def test_a_suggestion_is_never_lost_silently(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, database: DatabaseSettings
) -> None:
    suggestion = {"comment": {"text": "a"}, "attributeScores": {"TOXICITY": {"summaryScore": {"value": 1}}}}

    def refusal() -> tuple[int, str]:
        with serve() as client:
            answer = client.post(SUGGEST, json=suggestion)
        return answer.status_code, answer.json()["error"]["status"]

    assert refusal() == (501, "UNIMPLEMENTED")
    monkeypatch.setenv("PERSPECTIVE_INGESTION_URL", "http://127.0.0.1:1")
    assert refusal() == (503, "UNAVAILABLE")
    answers = iter([(500, "text/html", "<p>"), (401, "application/json", "{}"), (302, "text/html", "")])

    async def broken(scope: Any, receive: Any, send: Any) -> None:
        status, kind, body = next(answers)
        headers = [(b"content-type", kind.encode()), (b"location", b"http://127.0.0.1:1/")]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body.encode()})

    with served(broken, lifespan="off") as url:
        monkeypatch.setenv("PERSPECTIVE_INGESTION_URL", url)
        for _ in range(3):
            assert refusal() == (502, "UNAVAILABLE")


@pytest.mark.parametrize("wrong", ["TOXICITY", "TOXICITY=toxic", "TOXICITY=toxicity.spam", "A=b.c"])
def test_a_wrong_setting_stops_the_program(serve: Serve, monkeypatch: pytest.MonkeyPatch, wrong: str) -> None:
    monkeypatch.setenv("PERSPECTIVE_ATTRIBUTES", wrong)
    with pytest.raises(SystemExit, match="PERSPECTIVE_ATTRIBUTES"):
        serve()
