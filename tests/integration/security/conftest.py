"""Both APIs with keys required, as processes of their own, with bounds that are reached soon."""

import socket
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from urllib.parse import urlsplit

import httpx
import psycopg
import pytest

from core.web.keys import hash_key, make_key
from tests.conftest import fresh_database
from tests.programs import Program, running
from tests.waiting import wait_for

CONNECTIONS = 300
HEAD_SECONDS = 1.0


@dataclass(frozen=True)
class Guarded:
    """The APIs and a key of each scope."""

    ingestion: Program
    serving: Program
    database_url: str
    keys: dict[str, str]

    def headers(self, scope: str) -> dict[str, str]:
        """Return the headers with the key of a scope."""
        return {"Authorization": f"Bearer {self.keys[scope]}"}


@pytest.fixture(scope="package")
def guarded(
    admin_database_url: str, template_database: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Guarded]:
    folder = tmp_path_factory.mktemp("guarded")
    with fresh_database(admin_database_url, template_database) as url, ExitStack() as programs:
        keys = {scope: add_key(url, scope) for scope in ("ingest", "read", "snapshot", "admin")}
        bounds = {
            "HTTP_HEAD_SECONDS": str(HEAD_SECONDS),
            "HTTP_BODY_SECONDS": "1",
            "HTTP_CONNECTIONS": str(CONNECTIONS),
            "SERVING_KEY_CHECK_SECONDS": "0.2",
        }
        env = {"DATABASE_URL": url, "REQUIRE_API_KEY": "true", "DATA_DIR": str(folder)} | bounds
        ingestion = programs.enter_context(running("ingestion_api", env, folder / "ingestion.log"))
        serving = programs.enter_context(running("serving_api", env, folder / "serving.log", probe="/readyz"))
        for program, path in ((ingestion, "/queue"), (serving, "/texts")):
            headers = {"Authorization": f"Bearer {keys['admin']}"}
            wait_for(lambda: httpx.get(program.url + path, headers=headers).status_code == 200)  # noqa: B023
        yield Guarded(ingestion, serving, url, keys)


def add_key(
    url: str,
    *scopes: str,
    requests_per_second: float | None = None,
    burst: int | None = None,
    datasets: list[str] | None = None,
) -> str:
    """Add a key straight to the database."""
    key = make_key()
    values = [hash_key(key), list(scopes), requests_per_second, burst, datasets]
    with psycopg.connect(url, autocommit=True) as connection:
        statement = (
            "insert into api_keys (name, hash, scopes, requests_per_second, burst, datasets) values ('test', "
        )
        connection.execute(statement + "%s, %s, %s, %s, %s)", values)
    return key


def connect(program: Program) -> socket.socket:
    """Connect to a program without speaking HTTP."""
    return socket.create_connection(("127.0.0.1", urlsplit(program.url).port or 0), timeout=30)


def exchange(program: Program, request: bytes) -> bytes:
    """Send these bytes as they are, and return all that comes back until the program closes the connection."""
    with connect(program) as raw:
        raw.sendall(request)
        return receive(raw)


def receive(raw: socket.socket) -> bytes:
    """Return all that comes until the other side closes."""
    answer = b""
    try:
        while part := raw.recv(65536):
            answer += part
    except ConnectionResetError:
        pass
    return answer
