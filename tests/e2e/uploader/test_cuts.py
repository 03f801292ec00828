"""Calls of Argilla that are cut, delayed or doubled at the worst moment: each text is in Argilla once."""

import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psutil
import pytest

from local_stack.testing import RunningStack
from tests.e2e.uploader.conftest import AddTexts, ArgillaSpace, StartUploader
from tests.e2e.uploader.stored import fetch, statuses
from tests.programs import Program, running
from tests.proxy import DROP, LOSE_ANSWER, PASS, Fault, Proxy, running_proxy
from tests.waiting import wait_for

pytestmark = pytest.mark.soak

_QUICK = {
    "UPLOADER_ARGILLA_TIMEOUT_SECONDS": "2",
    "UPLOADER_RETRY_CAP_SECONDS": "1",
    "UPLOADER_LEADER_LEASE_SECONDS": "2",
    "UPLOAD_BATCH_SIZE": "50",
}

Rule = Callable[[bytes], Fault]


@pytest.fixture
def proxy(stack: RunningStack) -> Iterator[Proxy]:
    """Between the uploader and Argilla."""
    with running_proxy(stack.settings.argilla_port) as running:
        yield running


def _is_put(head: bytes) -> bool:
    return head.startswith(b"PUT ") and b"/records/bulk " in head.partition(b"\r\n")[0]


def _is_confirmation(head: bytes) -> bool:
    return head.startswith(b"POST ") and b"/records/search" in head.partition(b"\r\n")[0]


def _first(count: int, chosen: Callable[[bytes], bool], fault: Fault) -> Rule:
    """Do that to the first calls of a kind."""
    left = iter(range(count))
    return lambda head: fault if chosen(head) and next(left, None) is not None else PASS


def _check_each_once(argilla: ArgillaSpace, database_url: str, count: int) -> None:
    wait_for(lambda: statuses(database_url) == {"uploaded": count})
    assert argilla.stored_count() == argilla.visible_count() == count
    # A cut call decides nothing about the texts: it is no attempt.
    assert fetch(database_url, "select distinct attempts, lease_owner, last_error from texts") == [(1, None, None)]


_CUTS = {
    "PUT dropped": (_is_put, DROP),
    "PUT cut": (_is_put, Fault(request_bytes=3000)),
    "answer lost": (_is_put, LOSE_ANSWER),
    "answer cut": (_is_put, Fault(answer_bytes=200)),
    "confirmation lost": (_is_confirmation, LOSE_ANSWER),
}


def test_calls_that_are_cut_double_and_lose_nothing(
    start_uploader: StartUploader, add_texts: AddTexts, argilla: ArgillaSpace, database_url: str, proxy: Proxy
) -> None:
    with start_uploader(ARGILLA_URL=proxy.url, **_QUICK):
        for number, (name, (chosen, fault)) in enumerate(_CUTS.items(), start=1):
            proxy.rule = _first(3, chosen, fault)
            add_texts(*(f"{name} {i}" for i in range(60)))
            _check_each_once(argilla, database_url, 60 * number)


def test_a_put_that_arrives_long_after_it_was_given_up_doubles_nothing(
    start_uploader: StartUploader, add_texts: AddTexts, argilla: ArgillaSpace, database_url: str, proxy: Proxy
) -> None:
    late: list[bytes] = []

    def delay_the_first(head: bytes) -> Fault:
        if not _is_put(head) or late:
            return PASS
        late.append(head)
        return Fault(delay_seconds=8)

    proxy.rule = delay_the_first
    with start_uploader(ARGILLA_URL=proxy.url, **_QUICK):
        add_texts(*(f"text {i}" for i in range(120)))
        _check_each_once(argilla, database_url, 120)
        ann = argilla.add_annotator("ann")
        [(first,)] = fetch(database_url, "select id from texts order by sequence limit 1")
        updated_at = argilla.record(first)["updated_at"]
        ann.answer(argilla.record(first)["id"], "toxic")
        wait_for(lambda: argilla.record(first)["updated_at"] != updated_at)  # it has arrived
        _check_each_once(argilla, database_url, 120)
        wait_for(lambda: fetch(database_url, "select label from labels") == [("toxic",)])


def test_an_uploader_killed_between_put_and_confirmation_doubles_nothing(
    start_uploader: StartUploader, add_texts: AddTexts, argilla: ArgillaSpace, database_url: str, proxy: Proxy
) -> None:
    victims: list[Program] = []

    def kill_before_confirmation(head: bytes) -> Fault:
        if _is_confirmation(head) and victims:
            victims.pop().process.kill()
            return DROP
        return PASS

    proxy.rule = kill_before_confirmation
    with start_uploader(ARGILLA_URL=proxy.url, **_QUICK) as killed:
        victims.append(killed)
        add_texts(*(f"text {i}" for i in range(40)))
        wait_for(lambda: killed.process.poll() is not None)
    assert argilla.stored_count() == 40
    assert statuses(database_url) == {"uploading": 40}
    with start_uploader(ARGILLA_URL=proxy.url, **_QUICK):
        _check_each_once(argilla, database_url, 40)


def test_texts_stored_while_the_search_index_is_away_are_seen_when_it_is_back(
    start_uploader: StartUploader,
    add_texts: AddTexts,
    argilla: ArgillaSpace,
    database_url: str,
    stack: RunningStack,
) -> None:
    with start_uploader(**_QUICK):
        stack.stop_component("opensearch")
        try:
            add_texts(*(f"text {i}" for i in range(40)))
            wait_for(lambda: argilla.stored_count() == 40)  # 500, and yet stored
            assert statuses(database_url).get("uploaded", 0) == 0
        finally:
            stack.start_component("opensearch")
        _check_each_once(argilla, database_url, 40)


@pytest.fixture
def start_way(
    start_uploader: StartUploader, argilla: ArgillaSpace, database_url: str, tmp_path: Path
) -> Iterator[Callable[..., Proxy]]:
    """Start an ingestion API and an uploader; events come through the proxy returned."""
    with ExitStack() as programs:

        def start(**changes: str) -> Proxy:
            env = {"DATABASE_URL": database_url, "DATA_DIR": str(tmp_path)}
            ingestion = programs.enter_context(running("ingestion_api", env, tmp_path / "ingestion.log"))
            proxy = programs.enter_context(running_proxy(int(ingestion.url.rpartition(":")[2])))
            settings = {"WEBHOOK_URL": proxy.url, "WEBHOOK_CHECK_SECONDS": "1"} | _QUICK | changes
            programs.enter_context(start_uploader(**settings))
            return proxy

        yield start
    for webhook in argilla.http.get("webhooks").raise_for_status().json()["items"]:
        if argilla.workspace in webhook["description"]:
            argilla.http.delete(f"webhooks/{webhook['id']}").raise_for_status()


def _labels(database_url: str) -> list[Any]:
    return fetch(database_url, "select label, annotations from labels where status <> 'withdrawn' order by label")


def test_events_that_come_twice_and_in_the_wrong_order_change_nothing(
    start_way: Callable[..., Proxy], add_texts: AddTexts, argilla: ArgillaSpace, database_url: str
) -> None:
    proxy = start_way(WEBHOOK_GRACE_SECONDS="86400", COUNT_INTERVAL_SECONDS="86400")
    edited, deleted = add_texts("edited", "deleted")
    wait_for(lambda: fetch(database_url, "select swept_at is not null from datasets") == [(True,)])
    wait_for(lambda: statuses(database_url) == {"uploaded": 2})
    wait_for(lambda: fetch(database_url, "select count(*) from webhooks") == [(1,)])
    # Argilla repeats an event without a response after ten seconds: after the events of the edits.
    faults = [DROP, LOSE_ANSWER]
    calls: list[bytes] = []

    def hurt_the_first(head: bytes) -> Fault:
        calls.append(head)
        return faults.pop(0) if faults else PASS

    proxy.rule = hurt_the_first
    ann = argilla.add_annotator("ann")
    to_edit = ann.answer(argilla.record(edited)["id"], "toxic")
    to_delete = ann.answer(argilla.record(deleted)["id"], "toxic")
    wait_for(lambda: len(calls) == 2)
    ann.edit(to_edit, "non_toxic")
    ann.delete(to_delete)
    wait_for(lambda: _labels(database_url) == [("non_toxic", 1)])
    wait_for(lambda: len(calls) == 6)  # both were sent again
    wait_for(lambda: fetch(database_url, "select count(*) from rereads") == [(0,)])
    assert _labels(database_url) == [("non_toxic", 1)]


def test_answers_given_while_redis_is_away_come_with_a_sweep(
    start_way: Callable[..., Proxy],
    add_texts: AddTexts,
    argilla: ArgillaSpace,
    database_url: str,
    stack: RunningStack,
) -> None:
    start_way(WEBHOOK_GRACE_SECONDS="2", COUNT_INTERVAL_SECONDS="2")
    [id_] = add_texts("a text")
    wait_for(lambda: statuses(database_url) == {"uploaded": 1})
    wait_for(lambda: fetch(database_url, "select count(*) from webhooks") == [(1,)])
    ann, record_id = argilla.add_annotator("ann"), argilla.record(id_)["id"]
    stack.stop_component("redis")
    try:
        body = {"status": "submitted", "values": {"label": {"value": "toxic"}}}
        assert ann.http.post(f"records/{record_id}/responses", json=body).status_code == 500
        wait_for(lambda: _labels(database_url) == [("toxic", 1)])
    finally:
        stack.start_component("redis")


def test_answers_given_while_the_worker_is_frozen_come_once(
    start_way: Callable[..., Proxy],
    add_texts: AddTexts,
    argilla: ArgillaSpace,
    database_url: str,
    stack: RunningStack,
) -> None:
    proxy = start_way(WEBHOOK_GRACE_SECONDS="2", COUNT_INTERVAL_SECONDS="2")
    ids = add_texts("one", "two")
    wait_for(lambda: statuses(database_url) == {"uploaded": 2})
    wait_for(lambda: fetch(database_url, "select count(*) from webhooks") == [(1,)])
    calls: list[bytes] = []
    proxy.rule = lambda head: (calls.append(head), PASS)[1]  # type: ignore[func-returns-value]
    ann = argilla.add_annotator("ann")
    worker = psutil.Process(stack.pids["argilla_worker"])
    frozen = [worker, *worker.children(recursive=True)]
    for process in frozen:
        process.send_signal(signal.SIGSTOP)
    try:
        for id_ in ids:
            ann.answer(argilla.record(id_)["id"], "toxic")
        wait_for(lambda: _labels(database_url) == [("toxic", 1), ("toxic", 1)])
        assert calls == []
    finally:
        for process in frozen:
            process.send_signal(signal.SIGCONT)
    wait_for(lambda: len(calls) == 2)  # late
    wait_for(lambda: fetch(database_url, "select count(*) from rereads") == [(0,)])
    assert _labels(database_url) == [("toxic", 1), ("toxic", 1)]
