"""Long polls and server-sent events, from a program of its own: what it sends, and whom it lets go."""

import json
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.integration.serving_api.labelling import Labeller, wait_until
from tests.integration.serving_api.mirror import Mirror
from tests.programs import Program, running

_EVENTS = {"Accept": "text/event-stream"}
_CLIENTS = 4
_SECONDS = 30


@pytest.fixture
def program(database_url: str, tmp_path: Path) -> Iterator[Program]:
    env = {
        "DATABASE_URL": database_url,
        "DATA_DIR": str(tmp_path),
        "REPLICA_POLL_SECONDS": "0.05",
        "SERVING_CHANGES_CLIENTS": str(_CLIENTS),
        "SERVING_CHANGES_HEARTBEAT_SECONDS": "0.2",
        "SERVING_CHANGES_SEND_SECONDS": "1",
    }
    with running("serving_api", env, tmp_path / "log", "/readyz") as program:
        yield program


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


def test_a_poll_is_answered_when_a_label_comes(program: Program, labeller: Labeller) -> None:
    labeller.add_label("a")
    since = wait_for_version(program, labeller)
    with ThreadPoolExecutor() as threads:
        polls = [threads.submit(poll, program, since) for _ in range(_CLIENTS)]
        wait_until(lambda: waiting(program, "poll") == _CLIENTS)
        labeller.add_label("other", dataset="toxicity")
        pages = [one.result(_SECONDS / 2) for one in polls]
    assert [[item["text"] for item in page["items"]] for page in pages] == [["other"]] * _CLIENTS
    assert {page["next"] for page in pages} == {labeller.newest_stamp()}
    assert waiting(program, "poll") == 0


def test_a_poll_ends_when_its_time_is_over(program: Program, labeller: Labeller) -> None:
    labeller.add_label("a")
    since = wait_for_version(program, labeller)
    assert poll(program, since, wait=0.1) | {"feed": ""} == {"items": [], "next": since, "feed": ""}
    # A version that only another process can know: it will be known here in a moment, or never.
    assert poll(program, 2**63 - 1, wait=60)["items"] == []


def test_too_many_clients_are_refused_and_those_who_go_make_room(program: Program, labeller: Labeller) -> None:
    labeller.add_label("a")
    since = wait_for_version(program, labeller)
    with ThreadPoolExecutor() as threads:
        polls = [threads.submit(_gone_within, program, since, 2) for _ in range(_CLIENTS)]
        wait_until(lambda: waiting(program, "poll") == _CLIENTS)
        refusals = [
            httpx.get(f"{program.url}/changes?since={since}&wait=9"),
            httpx.get(f"{program.url}/changes", headers=_EVENTS),
        ]
        assert [(r.status_code, r.json()["code"], r.headers["retry-after"]) for r in refusals] == [
            (503, "too_many_waiting", "5")
        ] * 2
        assert httpx.get(f"{program.url}/changes?since=0&wait=9").status_code == 200  # it need not wait
        assert [one.result(_SECONDS) for one in polls] == [True] * _CLIENTS
    wait_until(lambda: waiting(program, "poll") == 0)


def _gone_within(program: Program, since: int, seconds: float) -> bool:
    with pytest.raises(httpx.ReadTimeout):
        httpx.get(f"{program.url}/changes", params={"since": since, "wait": 60}, timeout=seconds)
    return True


def test_events_are_the_changes(program: Program, labeller: Labeller) -> None:
    first = labeller.add_label("a\n\r\n\u2028b 🙂")
    both = [labeller.add_text("c"), labeller.add_text("d")]
    labeller.annotate({id_: {"ada": "toxic"} for id_ in both})
    wait_for_version(program, labeller)
    mirror = Mirror()
    with following(program) as events:
        feed = events.next()
        assert (feed["event"], feed["id"]) == ("feed", None)
        assert feed["data"]["feed"] == poll(program, 0)["feed"]
        seen = [events.next() for _ in range(3)]
        assert [event["event"] for event in seen] == ["upsert"] * 3
        # In one transaction: only the last of them says that all up to its version was sent.
        assert [event["id"] is None for event in seen] == [False, True, False]
        labeller.annotate({first: {}})
        gone = events.next()
        assert (gone["event"], gone["id"]) == ("delete", str(labeller.newest_stamp()))
        wait_for_version(program, labeller)
        events_read, pages = [*seen, gone], poll(program, 0)
        for event in events_read:
            mirror.apply(event["data"])
        assert list(mirror.items) == [change["id"] for change in pages["items"] if change["op"] == "upsert"]
        assert seen[1:] == [
            {"event": "upsert", "id": seen[n + 1]["id"], "data": change}
            for n, change in enumerate(pages["items"][:2])
        ]


def test_events_go_on_after_the_last_id(program: Program, labeller: Labeller) -> None:
    for word in "abc":
        labeller.add_label(word)
    wait_for_version(program, labeller)
    with following(program) as events:
        assert [events.next()["event"] for _ in range(2)] == ["feed", "upsert"]
        last_id = events.last_id
    with following(program, {"Last-Event-ID": str(last_id)}, since=0) as events:
        events.next()
        assert [events.next()["data"]["text"] for _ in range(2)] == ["b", "c"]


def test_an_idle_stream_has_heartbeats(program: Program, labeller: Labeller) -> None:
    labeller.add_label("a")
    since = wait_for_version(program, labeller)
    timer = threading.Timer(1.5, labeller.add_label, ["b"])
    timer.start()
    with following(program, since=since) as events:
        events.next()
        assert events.next()["data"]["text"] == "b"
        assert events.comments >= 2
    timer.join()


def test_clients_of_events_who_go_make_room(program: Program, labeller: Labeller) -> None:
    labeller.add_label("a")
    wait_for_version(program, labeller)
    for _ in range(2):
        with following(program) as one, following(program) as two:
            assert (one.next()["event"], two.next()["event"]) == ("feed", "feed")
            wait_until(lambda: waiting(program, "stream") == 2)
        wait_until(lambda: waiting(program, "stream") == 0)


def test_a_client_that_takes_nothing_is_let_go_and_holds_up_nobody(program: Program, labeller: Labeller) -> None:
    many = {labeller.add_text(f"{number} {'x' * 30_000}"): {"ada": "toxic"} for number in range(1000)}
    labeller.annotate(many)
    since = wait_for_version(program, labeller)
    with ThreadPoolExecutor() as threads, following(program) as slow:
        slow.next()
        polling = threads.submit(poll, program, since)
        labeller.add_label("meanwhile")
        assert polling.result(_SECONDS)["items"][0]["text"] == "meanwhile"
        wait_until(lambda: waiting(program, "stream") == 0)
    assert httpx.get(f"{program.url}/metrics").text.count("http_unhandled_errors_total 0.0") == 1


def test_it_stops_at_once_while_clients_wait(program: Program, labeller: Labeller) -> None:
    labeller.add_label("a")
    since = wait_for_version(program, labeller)
    with ThreadPoolExecutor() as threads, following(program) as events:
        polling = threads.submit(poll, program, since)
        wait_until(lambda: waiting(program, "poll") == 1)
        assert [events.next()["event"] for _ in range(2)] == ["feed", "upsert"]
        stopped = time.monotonic()
        program.process.send_signal(signal.SIGTERM)
        assert polling.result(_SECONDS) | {"feed": ""} == {"items": [], "next": since, "feed": ""}
        with pytest.raises(EOFError):
            events.next()
        assert program.process.wait(_SECONDS) in {0, -signal.SIGTERM}
        assert time.monotonic() - stopped < 9  # uvicorn cuts what is under way after ten seconds
