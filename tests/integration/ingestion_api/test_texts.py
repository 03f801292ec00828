"""POST /texts, GET /texts/{id}, GET /queue on a real Postgres."""

import asyncio
import json
import socket
import uuid
from typing import Any
from urllib.parse import urlsplit

import httpx
import psycopg
import pytest
from pydantic import SecretStr
from sqlalchemy import create_engine

from core.forgetting.service import Traces, forget_texts
from core.settings import DatabaseSettings
from core.text_identity import text_id


def test_a_text_is_stored_as_it_was_sent(client: httpx.Client) -> None:
    sent = {
        "text": "Größe \n zwei",
        "label": "toxic",
        "score": 0.5,
        "source": "forum",
        "external_id": "7",
        "metadata": {"n": 1, "yes": True, "x": 0.5, "s": "é"},
    }
    answer = client.post("/texts", json=sent)
    assert answer.status_code == 201
    id_ = str(text_id("toxicity", "Größe \n zwei"))
    assert answer.json() == {"id": id_, "status": "pending", "duplicate": False}
    assert answer.headers["location"] == f"/texts/{id_}"
    stored = client.get(answer.headers["location"]).json()
    received_at = stored.pop("received_at")
    assert stored == {
        "id": id_,
        "dataset": "toxicity",
        "text": "Größe \n zwei",
        "claimed_label": "toxic",
        "score": 0.5,
        "source": "forum",
        "external_id": "7",
        "metadata": {"n": 1, "yes": True, "x": 0.5, "s": "é"},
        "status": "pending",
        "uploaded_at": None,
        "labelled_at": None,
        "attempts": 0,
        "last_error": None,
        "trace": [{"step": "received", "at": received_at, "seconds_since_previous": None}],
        "enrichment": {},
        "near_duplicates": [],
    }


def test_the_same_text_again_changes_nothing(client: httpx.Client) -> None:
    first = client.post("/texts", json={"text": "e\u0301t\u00e9", "label": "toxic", "source": "a"})
    again = client.post("/texts", json={"text": "  \u00e9te\u0301\n", "label": "non_toxic", "source": "b"})
    assert (first.status_code, again.status_code) == (201, 200)
    assert again.json() == first.json() | {"duplicate": True}
    stored = client.get(first.headers["location"]).json()
    assert (stored["claimed_label"], stored["source"]) == ("toxic", "a")


def test_a_duplicate_tells_how_far_the_text_has_come(client: httpx.Client, connection: psycopg.Connection) -> None:
    client.post("/texts", json={"text": "a"})
    connection.execute("update texts set status = 'uploaded', uploaded_at = now()")
    assert client.post("/texts", json={"text": "a"}).json()["status"] == "uploaded"


@pytest.mark.parametrize(
    ("body", "headers", "status", "code"),
    [
        (b'{"text": "a"', {}, 400, "malformed_json"),
        (b"\xff\xfe", {}, 400, "malformed_json"),
        (b'{"text": "\\ud800"}', {}, 400, "malformed_json"),
        (b"[" * 100_000, {}, 400, "malformed_json"),
        (b'{"text": "a", "metadata": {"n": ' + b"1" * 5000 + b"}}", {}, 400, "malformed_json"),
        (b'{"text": "a", "score": NaN}', {}, 422, "invalid_fields"),
        (b'{"text": "a\\u0000"}', {}, 422, "invalid_fields"),
        (b"[]", {}, 422, "invalid_fields"),
        (b"", {}, 400, "malformed_json"),
        (b'{"text": "a"}', {"Content-Type": "text/plain"}, 415, "unsupported_media_type"),
        (b'{"text": "a"}', {"Content-Type": "application/json; charset=latin-1"}, 415, "unsupported_media_type"),
        (json.dumps({"text": "x" * 65537}).encode(), {}, 413, "text_too_large"),
        (json.dumps({"text": "x", "source": "y" * 1_100_000}).encode(), {}, 413, "body_too_large"),
    ],
)
def test_bad_input_is_refused_with_a_problem(
    client: httpx.Client, body: bytes, headers: dict[str, str], status: int, code: str
) -> None:
    answer = client.post("/texts", content=body, headers={"Content-Type": "application/json"} | headers)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert answer.headers["content-type"] == "application/problem+json"
    assert client.get("/queue").json()["pending"] == 0


@pytest.mark.parametrize("path", ["/texts/not-a-uuid", "/texts/%00", "/queue?dataset=none"])
def test_a_wrong_parameter_is_named(client: httpx.Client, path: str) -> None:
    answer = client.get(path)
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["parameter"] in {"id", "dataset"}


def test_an_unknown_text_is_not_found(client: httpx.Client) -> None:
    assert client.get(f"/texts/{uuid.uuid4()}").json()["code"] == "not_found"


def test_concurrent_senders_of_one_text_store_it_once(client: httpx.Client) -> None:
    async def send() -> list[dict[str, Any]]:
        async with httpx.AsyncClient(base_url=client.base_url) as many:
            answers = await asyncio.gather(*(many.post("/texts", json={"text": f"t{n % 5}"}) for n in range(100)))
            return [answer.json() for answer in answers]

    answers = asyncio.run(send())
    assert sum(not answer["duplicate"] for answer in answers) == 5
    assert client.get("/queue").json()["pending"] == 5


def test_the_queue_counts_by_status(client: httpx.Client, connection: psycopg.Connection) -> None:
    empty = {"pending": 0, "uploading": 0, "uploaded": 0, "failed": 0, "near_duplicates": 0, "open_records": 0}
    assert client.get("/queue").json() == empty | {"oldest_pending_seconds": None, "alerts": []}
    for n, status in enumerate(["pending", "pending", "uploading", "uploaded", "uploaded", "failed"]):
        id_ = client.post("/texts", json={"text": f"text {n}"}).json()["id"]
        connection.execute("update texts set status = %s where id = %s", [status, id_])
    connection.execute("update texts set completed_at = now() where text in ('text 0', 'text 3')")
    queue = client.get("/queue").json()
    assert queue.pop("oldest_pending_seconds") >= 0
    counts = {"pending": 2, "uploading": 1, "uploaded": 2, "failed": 1, "near_duplicates": 0, "open_records": 1}
    assert queue == counts | {"alerts": []}


def test_gold_that_waits_for_its_share_is_not_the_oldest_pending_text(
    client: httpx.Client, connection: psycopg.Connection
) -> None:
    id_ = client.post("/texts", json={"text": "gold"}).json()["id"]
    connection.execute("update texts set gold_label = 'toxic', received_at = '2026-01-01' where id = %s", [id_])
    assert client.get("/queue").json()["oldest_pending_seconds"] is None
    client.post("/texts", json={"text": "new"})
    queue = client.get("/queue").json()
    assert (queue["pending"], queue["oldest_pending_seconds"] < 3600) == (2, True)


def test_demo_texts_are_in_no_count(client: httpx.Client, connection: psycopg.Connection) -> None:
    id_ = client.post("/texts", json={"text": "demo"}).json()["id"]
    connection.execute("update texts set status = 'demo' where id = %s", [id_])
    queue = client.get("/queue").json()
    assert "demo" not in queue
    assert sum(queue[name] for name in ("pending", "uploading", "uploaded", "failed", "open_records")) == 0


def test_a_labelled_text_shows_when(client: httpx.Client, connection: psycopg.Connection) -> None:
    id_ = client.post("/texts", json={"text": "a"}).json()["id"]
    connection.execute("update texts set status = 'uploaded', uploaded_at = now()")
    connection.execute(
        "insert into labels (text_id, dataset, label, status, agreement, votes, annotations, labelled_at)"
        " values (%s, 'toxicity', null, 'disputed', 0.5, '{}', 2, now())",
        [id_],
    )
    stored = client.get(f"/texts/{id_}").json()
    assert stored["status"] == "labelled"
    assert stored["labelled_at"]
    connection.execute("update labels set status = 'withdrawn', annotations = 0")
    stored = client.get(f"/texts/{id_}").json()
    assert (stored["status"], stored["labelled_at"]) == ("uploaded", None)


def test_the_trace_of_a_text_tells_the_times_between_its_steps(
    client: httpx.Client, connection: psycopg.Connection
) -> None:
    id_ = client.post("/texts", json={"text": "a"}).json()["id"]
    connection.execute(
        "update texts set status = 'uploaded', uploaded_at = received_at + interval '2.5 seconds';"
        "insert into labels (text_id, dataset, label, status, agreement, votes, annotations, labelled_at)"
        " select id, dataset, 'toxic', 'labelled', 1, '{}', 1, uploaded_at + interval '1 day' from texts"
    )
    text = client.get(f"/texts/{id_}").json()
    assert [(s["step"], s["at"], s["seconds_since_previous"]) for s in text["trace"]] == [
        ("received", text["received_at"], None),
        ("uploaded", text["uploaded_at"], 2.5),
        ("labelled", text["labelled_at"], 86400.0),
    ]


def test_the_trace_of_a_refused_text_ends_with_its_failure(
    client: httpx.Client, connection: psycopg.Connection
) -> None:
    id_ = client.post("/texts", json={"text": "a"}).json()["id"]
    connection.execute("update texts set status = 'failed', last_error = 'too odd'")
    trace = client.get(f"/texts/{id_}").json()["trace"]
    assert [step["step"] for step in trace] == ["received", "failed"]
    assert trace[-1] == {"step": "failed", "at": None, "seconds_since_previous": None}


def test_a_client_that_goes_away_costs_nothing(client: httpx.Client) -> None:
    for _ in range(20):
        with socket.create_connection(("127.0.0.1", urlsplit(str(client.base_url)).port or 0)) as raw:
            raw.sendall(
                b"POST /texts HTTP/1.1\r\nHost: localhost\r\n"
                b"Content-Type: application/json\r\nContent-Length: 99\r\n\r\n{"
            )
    assert client.post("/texts", json={"text": "still here"}).status_code == 201


def test_the_queue_tells_what_stands_still(client: httpx.Client, connection: psycopg.Connection) -> None:
    for job, since in (("push", "2026-01-02"), ("sweep", "2026-01-01")):
        connection.execute(
            "insert into alerts values ('toxicity', %s, 'argilla_key_unknown', 'why', %s)", [job, since]
        )
    connection.execute("insert into alerts values ('removed from the settings', 'push', 'c', 'why')")
    alert = {
        "dataset": "toxicity",
        "code": "argilla_key_unknown",
        "reason": "why",
        "since": "2026-01-01T00:00:00Z",
    }
    assert client.get("/queue").json()["alerts"] == [alert]


def test_a_forgotten_text_is_not_taken_again(
    client: httpx.Client, connection: psycopg.Connection, shared_database_url: str
) -> None:
    id_ = client.post("/texts", json={"text": "Jane Roe", "external_id": "roe"}).json()["id"]
    engine = create_engine(DatabaseSettings(url=SecretStr(shared_database_url)).sqlalchemy_url)
    with engine.begin() as held:
        assert forget_texts(held, [uuid.UUID(id_)], Traces(), "tester") == [uuid.UUID(id_)]
    engine.dispose()
    again = client.post("/texts", json={"text": " Jane Roe ", "external_id": "roe"})
    assert (again.status_code, again.json()["code"]) == (409, "text_forgotten")
    read = client.get(f"/texts/{id_}")
    assert (read.status_code, read.json()["code"]) == (404, "text_forgotten")
    headers = {"Content-Type": "application/x-ndjson"}
    for mode in ("skip", "abort"):
        body = json.dumps({"text": "Jane Roe"}) + "\n" + json.dumps({"text": f"new {mode}"})
        counts = client.post(f"/texts/bulk?on_error={mode}", content=body, headers=headers).json()
        assert (counts["accepted"], counts["duplicates"]) == (1, 1)
    assert client.get("/queue").json()["pending"] == 2
    assert connection.execute("select count(*) from texts where texts::text like '%Roe%'").fetchall() == [(0,)]
