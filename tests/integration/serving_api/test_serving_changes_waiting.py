"""Long polls and server-sent events of a separate program: its messages, and the clients it disconnects."""

import json
import signal
import socket
import threading
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import SecretStr
from sqlalchemy import create_engine

from core.settings import DatabaseSettings
from tests.integration.serving_api.labelling import Labeller, wait_until
from tests.programs import Program, running

_EVENTS = {"Accept": "text/event-stream"}
_CLIENTS = 4
_SECONDS = 30


@pytest.fixture(scope="module")
def labeller(shared_database_url: str) -> Iterator[Labeller]:
    engine = create_engine(DatabaseSettings(url=SecretStr(shared_database_url)).sqlalchemy_url)
    yield Labeller(engine)
    engine.dispose()


@contextmanager
def started(url: str, folder: Path) -> Iterator[Program]:
    env = {
        "DATABASE_URL": url,
        "DATA_DIR": str(folder),
        "REPLICA_POLL_SECONDS": "0.05",
        "SERVING_CHANGES_CLIENTS": str(_CLIENTS),
        "CLIENT_SHARE": "1",  # all clients here come from one address
        "SERVING_CHANGES_HEARTBEAT_SECONDS": "0.2",
        "SERVING_CHANGES_SEND_SECONDS": "1",
    }
    with running("serving_api", env, folder / "log", "/readyz") as program:
        yield program


@pytest.fixture(scope="module")
def program(shared_database_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    with started(shared_database_url, tmp_path_factory.mktemp("changes")) as program:
        yield program


@pytest.fixture
def since(program: Program, labeller: Labeller) -> int:
    """The version of the last label of the tests before."""
    labeller.add_label(uuid.uuid4().hex)
    return wait_for_version(program, labeller)


class Events:
    """A client of server-sent events, as a browser's EventSource is one."""

    def __init__(self, response: httpx.Response) -> None:
        self.response = response
        self.last_id: str | None = None
        self.comments = 0
        self._lines = response.iter_lines()

    def next(self) -> dict[str, Any]:
        """Return the next event."""
        fields: dict[str, str] = {}
        for line in self._lines:
            if line.startswith(":"):
                self.comments += 1
            elif line:
                name, _, value = line.partition(": ")
                fields[name] = value
            elif "data" in fields:
                self.last_id = fields.get("id", self.last_id)
                return {"event": fields["event"], "id": fields.get("id"), "data": json.loads(fields["data"])}
        raise EOFError


@contextmanager
def following(program: Program, headers: dict[str, str] | None = None, **parameters: Any) -> Iterator[Events]:
    with httpx.stream(
        "GET", f"{program.url}/changes", params=parameters, headers=_EVENTS | (headers or {}), timeout=_SECONDS
    ) as response:
        assert response.headers["content-type"].startswith("text/event-stream"), response.read()
        yield Events(response)


def poll(program: Program, since: int, wait: float = _SECONDS) -> dict[str, Any]:
    parameters = {"since": since, "wait": wait}
    answer = httpx.get(f"{program.url}/changes", params=parameters, timeout=2 * _SECONDS)
    page: dict[str, Any] = answer.raise_for_status().json()
    return page


def waiting(program: Program, kind: str) -> int:
    """Return how many clients wait."""
    for line in httpx.get(f"{program.url}/metrics").text.splitlines():
        if line.startswith(f'serving_changes_waiting{{kind="{kind}"}}'):
            return int(float(line.split()[-1]))
    return 0


def wait_for_version(program: Program, labeller: Labeller) -> int:
    newest = labeller.newest_stamp()
    wait_until(lambda: httpx.get(f"{program.url}/texts").json()["version"] >= newest)
    return newest


def test_a_poll_is_answered_when_a_label_comes(program: Program, labeller: Labeller, since: int) -> None:
    with ThreadPoolExecutor() as threads:
        polls = [threads.submit(poll, program, since) for _ in range(_CLIENTS)]
        wait_until(lambda: waiting(program, "poll") == _CLIENTS)
        labeller.add_label("awaited")
        pages = [one.result(_SECONDS / 2) for one in polls]
    assert [[item["text"] for item in page["items"]] for page in pages] == [["awaited"]] * _CLIENTS
    assert {page["next"] for page in pages} == {labeller.newest_stamp()}
    assert waiting(program, "poll") == 0


def test_a_poll_ends_when_its_time_is_over(program: Program, since: int) -> None:
    assert poll(program, since, wait=0.1) | {"feed": ""} == {"items": [], "next": since, "feed": ""}
    # A version that only another process can know: it will be known here in a moment, or never.
    assert poll(program, 2**63 - 1, wait=60)["items"] == []


def test_too_many_clients_are_refused_and_those_who_go_make_room(program: Program, since: int) -> None:
    with ExitStack() as connections:
        for _ in range(_CLIENTS):
            connections.enter_context(asking(program, f"/changes?since={since}&wait=60"))
        wait_until(lambda: waiting(program, "poll") == _CLIENTS)
        other = httpx.Client(base_url=program.url, transport=httpx.HTTPTransport(local_address="127.0.0.2"))
        with other as client:
            refusals = [
                client.get(f"/changes?since={since}&wait=9"),
                client.get("/changes", headers=_EVENTS),
            ]
        for refusal in refusals:
            assert (refusal.status_code, refusal.json()["code"]) == (503, "too_many_waiting")
            assert refusal.headers["retry-after"] == "5"
        assert httpx.get(f"{program.url}/changes?since=0&wait=9").status_code == 200  # it need not wait
    wait_until(lambda: waiting(program, "poll") == 0)


@contextmanager
def asking(program: Program, path: str) -> Iterator[None]:
    """Send a request, and hang up when the block ends."""
    host, port = program.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
        yield


def test_events_are_the_changes(program: Program, labeller: Labeller, since: int) -> None:
    words = "a\n\r\n\u2028\x85b\x1c 🙂"
    first = labeller.add_label(words)
    both = [labeller.add_text("c"), labeller.add_text("d")]
    labeller.annotate({id_: {"ada": "toxic"} for id_ in both})
    pages = poll(program, since) if wait_for_version(program, labeller) else {}
    with following(program, since=since) as events:
        feed = events.next()
        assert (feed["event"], feed["id"], feed["data"]["feed"]) == ("feed", None, pages["feed"])
        seen = [events.next() for _ in range(3)]
        assert [event["data"] for event in seen] == pages["items"]
        assert seen[0]["data"]["text"] == words
        # Two are of one transaction: only the last of them says that all up to its version was sent.
        ids = [str(item["version"]) for item in pages["items"]]
        assert [event["id"] for event in seen] == [ids[0], None, ids[2]]
        labeller.annotate({first: {}})
        gone = events.next()
    assert (gone["event"], gone["id"]) == ("delete", str(labeller.newest_stamp()))
    delete = {"op": "delete", "version": labeller.newest_stamp(), "id": str(first), "dataset": "toxicity"}
    assert gone["data"] == delete


def test_events_go_on_after_the_last_id(program: Program, labeller: Labeller, since: int) -> None:
    for word in ("one", "two", "three"):
        labeller.add_label(word)
    with following(program, since=since) as events:
        assert [events.next()["event"] for _ in range(2)] == ["feed", "upsert"]
        last_id = str(events.last_id)
    with following(program, {"Last-Event-ID": last_id}, since=0) as events:
        events.next()
        assert [events.next()["data"]["text"] for _ in range(2)] == ["two", "three"]


def test_an_idle_stream_has_heartbeats(program: Program, labeller: Labeller, since: int) -> None:
    with following(program, since=since) as events:
        events.next()
        timer = threading.Timer(1, labeller.add_label, ["after silence"])
        timer.start()
        assert events.next()["data"]["text"] == "after silence"
        assert events.comments >= 2
        timer.join()


def test_clients_of_events_who_go_make_room(program: Program, since: int) -> None:
    for _ in range(2):
        with following(program, since=since) as one, following(program, since=since) as two:
            assert (one.next()["event"], two.next()["event"]) == ("feed", "feed")
            wait_until(lambda: waiting(program, "stream") == 2)
        wait_until(lambda: waiting(program, "stream") == 0)


def test_head_opens_no_stream(program: Program, since: int) -> None:
    answer = httpx.head(f"{program.url}/changes?since={since}", headers=_EVENTS)
    assert (answer.status_code, answer.headers["content-type"].split(";")[0]) == (200, "text/event-stream")
    assert waiting(program, "stream") == 0


@pytest.mark.soak
def test_a_client_that_takes_nothing_is_let_go_and_holds_up_nobody(
    program: Program, labeller: Labeller, since: int
) -> None:
    many = [labeller.add_text(f"{number} {'x' * 30_000}") for number in range(1000)]
    labeller.annotate({id_: {"ada": "toxic"} for id_ in many})
    newest = wait_for_version(program, labeller)
    with ThreadPoolExecutor() as threads, following(program, since=since) as slow:
        slow.next()
        polling = threads.submit(poll, program, newest)
        labeller.add_label("meanwhile")
        assert polling.result(_SECONDS)["items"][0]["text"] == "meanwhile"
        wait_until(lambda: waiting(program, "stream") == 0)
    assert "http_unhandled_errors_total 0.0" in httpx.get(f"{program.url}/metrics").text
    labeller.annotate({id_: {} for id_ in many})


def test_its_stop_answers_the_clients_that_wait(
    shared_database_url: str, labeller: Labeller, tmp_path: Path
) -> None:
    labeller.add_label(uuid.uuid4().hex)
    with started(shared_database_url, tmp_path) as program, ThreadPoolExecutor() as threads:
        since = wait_for_version(program, labeller)
        with following(program, since=since) as events:
            assert events.next()["event"] == "feed"
            polling = threads.submit(poll, program, since)
            wait_until(lambda: waiting(program, "poll") == 1)
            program.process.send_signal(signal.SIGTERM)
            assert polling.result(_SECONDS)["items"] == []
            with pytest.raises(EOFError):
                events.next()
            assert program.process.wait(_SECONDS) in {0, -signal.SIGTERM}
