"""POST /webhooks/argilla on a real Postgres."""

import json
import socket
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit
from uuid import UUID, uuid4

import httpx
import psycopg
import pytest

from core.tables.rows import ROW_BYTES
from core.text_identity import text_id
from ingestion_api.webhooks.endpoints import EVENT_BYTES
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


@pytest.mark.parametrize(
    ("change", "length", "status"),
    [
        ({"webhook-id": ""}, 1000, 401),
        ({"webhook-timestamp": "1"}, 1000, 401),
        ({"webhook-timestamp": "9" * 40}, 1000, 401),
        ({"webhook-signature": "v1,AAAA"}, 1000, 401),
        ({"webhook-signature": "v1a," + "A" * 43 + "="}, 1000, 401),
        ({}, EVENT_BYTES + 1, 413),
        ({}, 10**18, 413),
    ],
)
def test_what_cannot_be_an_event_is_refused_before_its_body_is_read(
    client: httpx.Client, change: dict[str, str], length: int, status: int
) -> None:
    with _begin(client, signed(b"") | change, length) as raw:
        assert raw.recv(65536).startswith(b"HTTP/1.1 %d " % status)


def _begin(
    client: httpx.Client, headers: dict[str, str], length: int, address: str = "127.0.0.1"
) -> socket.socket:
    """Begin to send an event, without its body."""
    target = ("127.0.0.1", urlsplit(str(client.base_url)).port or 0)
    raw = socket.create_connection(target, timeout=60, source_address=(address, 0))
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    raw.sendall(
        f"POST /webhooks/argilla HTTP/1.1\r\nHost: localhost\r\n{lines}Content-Length: {length}\r\n\r\n".encode()
    )
    return raw


def test_strangers_who_send_slowly_do_not_keep_argilla_out(send: Send, client: httpx.Client) -> None:
    body = event(_ID, _ARGILLA_DATASET)
    with ExitStack() as stack:
        slow = [stack.enter_context(_begin(client, signed(body), 1000, "127.0.0.2")) for _ in range(20)]
        assert send(body).status_code == 204
        answers = [raw.recv(65536)[:12] for raw in slow]
    # Clients whose turn came are refused as too slow; the others because their turn did not come.
    assert set(answers) == {b"HTTP/1.1 408", b"HTTP/1.1 503"}
    assert answers.count(b"HTTP/1.1 503") >= 4


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
    body = b" " * (EVENT_BYTES + 1)
    assert send(body).status_code == 413
    assert send(iter([body]), signed(body)).status_code == 413  # without a length


def test_the_longest_event_of_a_text_is_taken(send: Send, connection: psycopg.Connection) -> None:
    """A row of 1 MiB whose characters are all escaped, with long guidelines and a long answer."""
    text, term = "é" * 32_768, "é" * 8000
    metadata = {f"term {n}": term for n in range(61)}
    row = json.dumps({"text": text, "metadata": metadata}, ensure_ascii=False).encode()
    assert ROW_BYTES - 20_000 < len(row) <= ROW_BYTES
    body = event(_ID, _ARGILLA_DATASET, fields={"text": text}, metadata=metadata, guidelines="🙂" * 9_700)
    long = json.loads(body) | {"values": {"why": {"value": "a" * 800_000}}}
    body = json.dumps(long).encode()
    assert len(body) > 3 * ROW_BYTES
    assert send(body).status_code == 204
    assert _noted(connection) == [_ID]


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
