"""`annotate uploads verify` with a real Postgres and a scripted Argilla."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs
from uuid import UUID, uuid4

import psycopg
import pytest

from core.text_identity import text_id
from tests.integration.cli.test_commands import annotate

_DATASET, _ANN, _BOB = UUID(int=10), str(UUID(int=21)), str(UUID(int=22))


class _Argilla:
    """Records by external id, with their responses; some are not in the index."""

    def __init__(self) -> None:
        self.records: dict[str, list[dict[str, Any]]] = {}
        self.hidden: set[str] = set()
        self.has_dataset = True
        self.has_index = True

    def respond(self, id_: UUID, user: str, value: str) -> None:
        response = {"user_id": user, "status": "submitted", "values": {"label": {"value": value}}}
        self.records[str(id_)].append(response)

    def answer(self, method: str, path: str, body: Any) -> tuple[int, Any]:
        path, _, query = path.removeprefix("/api/v1/").partition("?")
        if path == "users":
            return 200, {"items": [{"id": _ANN, "username": "ann"}, {"id": _BOB, "username": "bob"}]}
        if not self.has_dataset:
            return 404, {}
        match method, path.removeprefix(f"datasets/{_DATASET}"):
            case "GET", "/records":
                start = int(parse_qs(query).get("offset", ["0"])[0])
                items = [{"external_id": id_} for id_ in list(self.records)[start : start + 250]]
                return 200, {"items": items, "total": len(self.records)}
            case "GET", "/progress":
                return (200, {"total": len(self.records.keys() - self.hidden)}) if self.has_index else (500, {})
            case "POST", "/records/search":
                ids = body["filters"]["and"][0]["values"]
                shown = [id_ for id_ in ids if id_ in self.records.keys() - self.hidden]
                found = [{"record": {"external_id": id_, "responses": self.records[id_]}} for id_ in shown]
                return (200, {"items": found}) if self.has_index else (500, {})
            case "POST", "/records/bulk":
                there = [item["external_id"] for item in body["items"] if item["external_id"] in self.records]
                words = f"found records with same external ids: {', '.join(there)}"
                return 422, {"detail": words if there else "Record at position 0 is not valid because of it"}
            case _:
                return 200, {}


@pytest.fixture
def argilla() -> _Argilla:
    return _Argilla()


@pytest.fixture
def argilla_url(argilla: _Argilla) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(length)) if length else None
            status, content = argilla.answer(self.command, self.path, body)
            self.send_response(status)
            self.end_headers()
            self.wfile.write(json.dumps(content).encode())

        do_GET = do_POST = _answer  # noqa: N815 - the server's names

        def log_message(self, *_: object) -> None:
            return

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


@pytest.fixture
def connection(database_url: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("insert into datasets (name, argilla_dataset_id) values ('toxicity', %s)", [_DATASET])
        yield connection


def _upload(connection: psycopg.Connection, argilla: _Argilla, *texts: str) -> list[UUID]:
    ids = [text_id("toxicity", text) for text in texts]
    for id_, text in zip(ids, texts, strict=True):
        connection.execute(
            "insert into texts (id, dataset, text, status, uploaded_at)"
            " values (%s, 'toxicity', %s, 'uploaded', now())",
            [id_, text],
        )
        argilla.records[str(id_)] = []
    return ids


def _hold(connection: psycopg.Connection, id_: UUID, name: str, value: str, dataset: UUID = _DATASET) -> None:
    connection.execute(
        "insert into annotations (text_id, response_id, annotator_id, annotator, status, value, created_at,"
        " updated_at, seen_at, argilla_dataset_id)"
        " values (%s, %s, %s, %s, 'submitted', %s, now(), now(), now(), %s)",
        [id_, uuid4(), uuid4(), name, value, dataset],
    )


def _verify(database_url: str, argilla_url: str, *arguments: str) -> tuple[int, dict[str, Any]]:
    env = {"DATABASE_URL": database_url, "ARGILLA_URL": argilla_url, "ARGILLA_API_KEY": "a key"}
    result = annotate("uploads", "verify", "--json", *arguments, **env)
    assert result.stdout, result.stderr
    [report] = json.loads(result.stdout)["datasets"]
    return result.returncode, report


def test_in_step(connection: psycopg.Connection, argilla: _Argilla, argilla_url: str, database_url: str) -> None:
    ids = _upload(connection, argilla, *(f"text {i}" for i in range(600)))
    _hold(connection, ids[0], "ann", "toxic")
    argilla.respond(ids[0], _ANN, "toxic")
    _hold(
        connection, ids[1], "gone", "toxic", uuid4()
    )  # of an earlier dataset, of somebody who is not in this one
    code, report = _verify(database_url, argilla_url)
    assert (code, report["in_step"], report["answers_kept"]) == (0, True, 1)
    assert (report["uploaded"], report["stored"], report["searchable"]) == (600, 600, 600)


def test_each_way_to_be_out_of_step_is_named(
    connection: psycopg.Connection, argilla: _Argilla, argilla_url: str, database_url: str
) -> None:
    missing, hidden, edited, unseen, _ = _upload(connection, argilla, "a", "b", "c", "d", "e")
    del argilla.records[str(missing)]
    argilla.hidden = {str(hidden)}
    argilla.records |= {"not an id": [], str(uuid4()): []}
    _hold(connection, edited, "ann", "toxic")
    argilla.respond(edited, _ANN, "non_toxic")
    argilla.respond(unseen, _BOB, "toxic")
    code, report = _verify(database_url, argilla_url, "--dataset", "toxicity")
    assert (code, report["missing"], report["not_searchable"]) == (1, [str(missing)], [str(hidden)])
    assert set(report["unknown"]) == argilla.records.keys() - {str(i) for i in (hidden, edited, unseen, _)}
    assert set(report["answers_differ"]) == {str(edited), str(unseen)}


@pytest.mark.parametrize("lost", ["has_dataset", "has_index"])
def test_what_is_lost_is_said(
    lost: str, connection: psycopg.Connection, argilla: _Argilla, argilla_url: str, database_url: str
) -> None:
    _upload(connection, argilla, "a")
    setattr(argilla, lost, False)
    env = {"DATABASE_URL": database_url, "ARGILLA_URL": argilla_url, "ARGILLA_API_KEY": "a key"}
    result = annotate("uploads", "verify", **env)
    assert result.returncode == 1
    assert {"has_dataset": "has no dataset", "has_index": "search index is lost"}[lost] in result.stdout


def test_an_argilla_that_does_not_answer_is_no_traceback(
    connection: psycopg.Connection, database_url: str
) -> None:
    env = {"DATABASE_URL": database_url, "ARGILLA_URL": "http://127.0.0.1:1", "ARGILLA_API_KEY": "a key"}
    result = annotate("uploads", "verify", **env)
    assert (result.returncode, "Traceback" in result.stderr) == (1, False)
    assert "127.0.0.1:1" in result.stderr
