"""A withdrawn key ends responses that are still being sent."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import httpx
import psycopg
import pytest
from pydantic import SecretStr
from sqlalchemy import create_engine, text

from core.settings import DatabaseSettings
from core.web.keys import hash_key
from tests.integration.security.conftest import Guarded, add_key
from tests.waiting import wait_for

_SECONDS = 60.0
_ROWS = 8_000
# Of 4 kB that cannot be compressed to less than a half.
_ADD = """
    with t as (
        insert into texts (id, dataset, text)
        select gen_random_uuid(), 'toxicity', string_agg(md5(n || '/' || i), '')
        from generate_series(1, :rows) n, generate_series(1, 128) i group by n
        returning id
    )
    insert into labels (text_id, dataset, label, status, agreement, votes, annotations, labelled_at)
    select id, 'toxicity', 'toxic', 'labelled', 1, '{"toxic": 1}', 1, now() from t
"""


@pytest.fixture(scope="module", autouse=True)
def rows(guarded: Guarded) -> Iterator[None]:
    """More than sockets keep, and a snapshot of it."""
    engine = create_engine(DatabaseSettings(url=SecretStr(guarded.database_url)).sqlalchemy_url)
    with engine.begin() as connection:
        connection.execute(text(_ADD), {"rows": _ROWS})
    engine.dispose()
    headers = guarded.headers("admin")
    with httpx.Client(base_url=guarded.serving.url, headers=headers, timeout=120) as client:
        wait_for(lambda: len(client.get("/texts", params={"limit": 1000}).json()["items"]) == 1000)
        assert client.post("/snapshots", json={"name": "held", "splits": {"all_of_it": 1}}).is_success
        yield
        assert client.delete("/snapshots/held").status_code == 204


def withdraw(guarded: Guarded, key: str) -> None:
    with psycopg.connect(guarded.database_url, autocommit=True) as connection:
        connection.execute("update api_keys set withdrawn_at = now() where hash = %s", [hash_key(key)])


@contextmanager
def asked(guarded: Guarded, key: str, path: str, accept: str) -> Iterator[socket.socket]:
    target = urlsplit(guarded.serving.url)
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.settimeout(_SECONDS)
        client.connect((target.hostname, target.port))
        head = f"GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\nAccept: {accept}\r\n\r\n"
        client.sendall(head.encode())
        yield client


def take_all(client: socket.socket) -> bytes:
    """Return all that comes until the connection ends.

    Raises:
        TimeoutError: it does not end.
    """
    taken = b""
    try:
        while part := client.recv(65536):
            taken += part
    except ConnectionResetError:
        pass
    return taken


@pytest.mark.parametrize(
    ("path", "accept", "whole"),
    [
        ("/changes?since={version}", "text/event-stream", b""),
        ("/changes?since={version}&wait=60", "application/json", b'"next":'),
        ("/export.ndjson", "*/*", b"\r\n0\r\n\r\n"),
        ("/snapshots/held/all_of_it.parquet", "*/*", b"PAR1"),
    ],
    ids=["events", "long poll", "export", "download"],
)
def test_an_answer_that_goes_on_ends_with_its_key(guarded: Guarded, path: str, accept: str, whole: bytes) -> None:
    key = add_key(guarded.database_url, "read")
    headers = {"Authorization": f"Bearer {key}"}
    wait_for(lambda: httpx.get(f"{guarded.serving.url}/texts?limit=1", headers=headers).status_code == 200)
    version = httpx.get(f"{guarded.serving.url}/texts?limit=1", headers=headers).json()["version"]
    with asked(guarded, key, path.format(version=version), accept) as client:
        if "wait" not in path:
            assert client.recv(100).startswith(b"HTTP/1.1 200")
        withdraw(guarded, key)
        wait_for(lambda: httpx.get(f"{guarded.serving.url}/texts?limit=1", headers=headers).status_code == 401)
        taken = take_all(client)
        assert not whole or not taken.endswith(whole)
        assert whole != b'"next":' or whole not in taken


def test_an_answer_goes_on_while_its_key_is_valid(guarded: Guarded) -> None:
    with httpx.stream(
        "GET", f"{guarded.serving.url}/export.ndjson", headers=guarded.headers("read"), timeout=_SECONDS
    ) as answer:
        assert sum(1 for _ in answer.iter_lines()) == _ROWS
