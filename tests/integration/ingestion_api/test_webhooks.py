"""POST /webhooks/argilla on a real Postgres."""

from collections.abc import Callable
from pathlib import Path
from uuid import UUID, uuid4

import httpx
import psycopg
import pytest

from core.text_identity import text_id
from tests.integration.ingestion_api.signing import SECRET, event, signed
from tests.programs import running

_ARGILLA_DATASET = UUID(int=10)
_ID = text_id("toxicity", "a text")

Send = Callable[..., httpx.Response]


@pytest.fixture
def send(client: httpx.Client, connection: psycopg.Connection) -> Send:
    """Send a signed event to an API that knows the secret, a text and its dataset in Argilla."""
    connection.execute("truncate rereads, webhooks, datasets")
    connection.execute("insert into webhooks (id, secret) values (%s, %s)", [uuid4(), SECRET])
    connection.execute(
        "insert into datasets (name, argilla_dataset_id) values ('toxicity', %s)", [_ARGILLA_DATASET]
    )
    connection.execute("insert into texts (id, dataset, text) values (%s, 'toxicity', 'a text')", [_ID])

    def send_(body: bytes, headers: dict[str, str] | None = None) -> httpx.Response:
        return client.post("/webhooks/argilla", content=body, headers=headers or signed(body))

    return send_


def _noted(connection: psycopg.Connection) -> list[UUID]:
    return [row[0] for row in connection.execute("select text_id from rereads").fetchall()]


@pytest.mark.parametrize("kind", ["response.created", "response.updated", "response.deleted", "record.deleted"])
def test_an_event_notes_its_text(send: Send, connection: psycopg.Connection, kind: str) -> None:
    assert send(event(_ID, _ARGILLA_DATASET, kind)).status_code == 204
    assert _noted(connection) == [_ID]


def test_many_events_of_a_text_are_one_note_with_another_stamp(send: Send, connection: psycopg.Connection) -> None:
    stamps = set()
    for _ in range(3):
        send(event(_ID, _ARGILLA_DATASET)).raise_for_status()
        [[stamp]] = connection.execute("select stamp from rereads").fetchall()
        stamps.add(stamp)
    assert len(stamps) == 3


def test_a_note_wakes_the_uploader(send: Send, connection: psycopg.Connection) -> None:
    connection.execute("listen rereads")
    send(event(_ID, _ARGILLA_DATASET)).raise_for_status()
    [notification] = connection.notifies(timeout=30, stop_after=1)
    assert notification.payload == "toxicity"


@pytest.mark.parametrize(
    "body",
    [
        event(_ID, UUID(int=99)),  # a dataset of somebody else's
        event(uuid4(), _ARGILLA_DATASET),  # a record that we did not make
        event("post 7", _ARGILLA_DATASET),
        event(None, _ARGILLA_DATASET, external_id=None),
        event(_ID, _ARGILLA_DATASET, "record.updated"),
        event(_ID, _ARGILLA_DATASET, "an event of a later Argilla's"),
        b'{"type": "ping", "version": 1, "timestamp": "2026-01-01T00:00:00Z", "data": {"agent": "argilla"}}',
    ],
)
def test_what_is_not_about_our_texts_is_taken_and_ignored(
    send: Send, connection: psycopg.Connection, body: bytes
) -> None:
    assert send(body).status_code == 204
    assert _noted(connection) == []


@pytest.mark.parametrize(
    "change",
    [
        {"webhook-signature": "v1,AAAA"},
        {"webhook-signature": "nonsense"},
        {"webhook-signature": "v1,\xe9"},
        {"webhook-signature": "v1,A"},
        {"webhook-signature": ""},
        {"webhook-id": "another"},
        {"webhook-timestamp": "1"},
        {"webhook-timestamp": "1e999"},
        {"webhook-timestamp": "now"},
    ],
)
def test_a_wrong_signature_is_refused(send: Send, connection: psycopg.Connection, change: dict[str, str]) -> None:
    body = event(_ID, _ARGILLA_DATASET)
    headers = {name: value.encode("latin-1") for name, value in (signed(body) | change).items()}
    answer = send(body, headers)
    assert (answer.status_code, answer.json()["code"]) == (401, "bad_signature")
    assert answer.headers["content-type"] == "application/problem+json"
    assert _noted(connection) == []


@pytest.mark.parametrize("age_seconds", [310, -310])
def test_an_old_signature_is_refused(send: Send, age_seconds: float) -> None:
    body = event(_ID, _ARGILLA_DATASET)
    assert send(body, signed(body, age_seconds=age_seconds)).status_code == 401


def test_a_signature_of_another_body_is_refused(send: Send) -> None:
    assert send(event(_ID, _ARGILLA_DATASET), signed(event(uuid4(), _ARGILLA_DATASET))).status_code == 401


def test_without_a_signature_nothing_is_read(client: httpx.Client) -> None:
    answer = client.post("/webhooks/argilla", content=b"x" * 1000)
    assert answer.status_code == 401


def test_an_unknown_secret_is_refused(send: Send) -> None:
    body = event(_ID, _ARGILLA_DATASET)
    other = "whsec_YW5vdGhlciBzZWNyZXQ="
    assert send(body, signed(body, other)).status_code == 401


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xff\xfe",
        b"null",
        b"[" * 100_000,
        b'{"type": "response.created"}',
        b'{"type": 1, "timestamp": "x", "data": []}',
        b'{"type": "response.created", "timestamp": "2026-01-01T00:00:00Z", "data": {"record": 7}}',
        b'{"type": "record.deleted", "timestamp": "2026-01-01T00:00:00Z", "data": {"id": "\\ud800"}}',
    ],
)
def test_a_signed_body_that_is_no_event_is_malformed(send: Send, body: bytes) -> None:
    if body.startswith(b"\xff"):  # nobody can sign that
        assert send(body, signed(b"")).status_code == 401
        return
    answer = send(body)
    assert (answer.status_code, answer.json()["code"]) == (400, "malformed_event")


def test_an_event_over_the_limit_is_refused(send: Send) -> None:
    body = b" " * (16 * 1024 * 1024 + 1)
    assert send(body).status_code == 413


def test_a_new_webhooks_secret_is_known_within_seconds_and_an_old_one_keeps_working(
    database_url: str, tmp_path: Path
) -> None:
    second = "whsec_YW5vdGhlciBzZWNyZXQ="
    body = event(_ID, _ARGILLA_DATASET)
    # Keys are required: the signature is the key here.
    env = {"DATABASE_URL": database_url, "REQUIRE_API_KEY": "true"}
    with (
        psycopg.connect(database_url, autocommit=True) as connection,
        running("ingestion_api", env, tmp_path / "log") as program,
        httpx.Client(base_url=program.url) as client,
    ):
        for secret in (SECRET, second):
            connection.execute("insert into webhooks (id, secret) values (%s, %s)", [uuid4(), secret])

        def status(secret: str) -> int:
            headers = signed(body, secret)
            return client.post("/webhooks/argilla", content=body, headers=headers).status_code

        assert [status(SECRET), status(second)] == [204, 204]
        assert client.get("/queue").status_code == 401


def test_without_postgres_argilla_is_told_to_come_again(tmp_path: Path) -> None:
    env = {"DATABASE_URL": "postgresql://nobody@127.0.0.1:1/none"}
    with running("ingestion_api", env, tmp_path / "log") as program:
        body = event(_ID, _ARGILLA_DATASET)
        answer = httpx.post(f"{program.url}/webhooks/argilla", content=body, headers=signed(body))
    assert (answer.status_code, answer.json()["code"]) == (503, "database_unavailable")
    assert answer.headers["retry-after"]


def test_what_becomes_of_events_is_counted(send: Send, client: httpx.Client) -> None:
    def count(outcome: str) -> float:
        name = f'ingestion_webhook_events_total{{outcome="{outcome}"}} '
        lines = client.get("/metrics").text.splitlines()
        return next((float(line.removeprefix(name)) for line in lines if line.startswith(name)), 0)

    before = {outcome: count(outcome) for outcome in ("noted", "ignored", "malformed", "forged")}
    body = event(_ID, _ARGILLA_DATASET)
    send(body).raise_for_status()
    send(event(_ID, UUID(int=99))).raise_for_status()
    assert send(b"no event", signed(b"no event")).status_code == 400
    assert send(body, signed(b"another body")).status_code == 401
    assert client.post("/webhooks/argilla", content=body).status_code == 401
    after = {outcome: count(outcome) - before[outcome] for outcome in before}
    assert after == {"noted": 1, "ignored": 1, "malformed": 1, "forged": 2}
