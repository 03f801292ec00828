"""Claims of imports: one process at a time, in order, and nothing that a lost claim can still do."""

from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from typing import Any
from uuid import UUID

import psycopg
import pytest

from core.datasets import Dataset
from core.models import ImportState
from core.web.problems import Problem
from ingestion_api.imports import repository
from ingestion_api.imports.repository import (
    Claim,
    claim_import,
    drop_bodies,
    drop_old,
    expire_uploads,
    give_up,
    release_claim,
    renew_claim,
)
from ingestion_api.imports.run import RunResult
from tests.integration.ingestion_api.import_queue import ImportQueue, lines, process_pool

LEASE = 100.0


@pytest.fixture(scope="module")
def processes() -> Iterator[ProcessPoolExecutor]:
    """Processes that run imports."""
    with process_pool() as pool:
        yield pool


@pytest.fixture
def queue(
    shared_database_url: str, connection: psycopg.Connection, processes: ProcessPoolExecutor
) -> Iterator[ImportQueue]:
    """An empty queue of imports."""
    queue = ImportQueue(shared_database_url, connection, processes)
    yield queue
    queue.close()


def _claim(queue: ImportQueue) -> Claim:
    claim = queue.call(claim_import, LEASE)
    assert claim is not None
    return claim


def _seconds_left(queue: ImportQueue, id_: UUID) -> float:
    [(seconds,)] = queue.fetch("select extract(epoch from lease_until - now()) from imports where id = %s", id_)
    return float(seconds)


def _counts(row: dict[str, Any]) -> tuple[int, int, int, int]:
    return row["received"], row["accepted"], row["duplicates"], row["rejected"]


def _rejects(queue: ImportQueue) -> list[tuple[Any, ...]]:
    return queue.fetch('select "row", code, fields::text from import_rejects order by "row"')


@pytest.fixture
def taken_over(queue: ImportQueue) -> tuple[Claim, Claim]:
    """The claim of a process whose lease ran out, and the claim of the one that took the import over."""
    queue.add(lines({"text": "a"}, "nope", {"text": "b"}))
    lost = _claim(queue)
    queue.change(lost.id, "lease_until = now() - interval '1 second'")
    held = _claim(queue)
    assert held.id == lost.id
    return lost, held


# Claiming


def test_two_claims_at_the_same_moment_get_different_imports(queue: ImportQueue) -> None:
    added = {queue.add(), queue.add()}
    with queue.barrier("update on imports") as barrier:
        first = queue.begin(claim_import, LEASE)
        barrier.wait(1)  # it has chosen its import, and not committed yet
        second = queue.begin(claim_import, LEASE)
        barrier.wait(2)
        barrier.open()
        claims = [first.result(), second.result()]
    assert {claim.id for claim in claims if claim} == added


def test_an_import_that_another_process_is_claiming_is_passed_over_without_waiting(queue: ImportQueue) -> None:
    queue.add()
    with queue.barrier("update on imports") as barrier:
        first = queue.begin(claim_import, LEASE)
        barrier.wait(1)
        assert queue.call(claim_import, LEASE) is None
        barrier.open()
        assert first.result() is not None


def test_the_oldest_complete_import_is_claimed_first(queue: ImportQueue) -> None:
    queue.add_open()
    added = [queue.add() for _ in range(3)]
    assert [_claim(queue).id for _ in added] == added
    assert queue.call(claim_import, LEASE) is None


@pytest.mark.parametrize("state", ["receiving", "done", "failed", "deleted"])
def test_only_what_waits_is_claimed(queue: ImportQueue, state: str) -> None:
    queue.change(queue.add(), f"state = '{state}', lease_until = now() - interval '1 day'")
    assert queue.call(claim_import, LEASE) is None


def test_an_import_without_its_body_is_not_claimed(queue: ImportQueue) -> None:
    queue.change(queue.add(), "has_body = false")
    assert queue.call(claim_import, LEASE) is None


def test_a_claim_tells_what_to_run_and_lasts_for_the_lease(queue: ImportQueue) -> None:
    body = lines({"text": "a"})
    id_ = queue.add(body, source="forum")
    queue.change(id_, "last_row = 5, received = 4, accepted = 1, duplicates = 2, rejected = 3, crashes = 1")
    claim = _claim(queue)
    assert (claim.id, claim.media_type, claim.encoding) == (id_, "application/x-ndjson", "identity")
    assert (claim.length, claim.last_row, claim.crashes) == (len(body), 5, 1)
    assert claim.parameters == {"on_error": "skip", "text": "text", "metadata": "none", "source": "forum"}
    counts = claim.counts
    assert (counts.received, counts.accepted, counts.duplicates, counts.rejected) == (4, 1, 2, 3)
    row = queue.row(id_)
    assert (row["state"], row["lease_owner"], row["crashes"]) == ("running", claim.owner, 1)
    assert LEASE - 60 < _seconds_left(queue, id_) <= LEASE


def test_a_running_import_is_taken_over_once_its_lease_has_run_out_and_counts_as_a_crash(
    queue: ImportQueue,
) -> None:
    id_ = queue.add()
    lost = _claim(queue)
    started_at = queue.row(id_)["started_at"]
    assert queue.call(claim_import, LEASE) is None
    queue.change(id_, "lease_until = now() - interval '1 second'")
    held = _claim(queue)
    assert held.owner != lost.owner
    row = queue.row(id_)
    assert (row["crashes"], row["lease_owner"], row["started_at"]) == (1, held.owner, started_at)


# Holding and giving back


def test_the_holder_renews_its_claim(queue: ImportQueue) -> None:
    id_ = queue.add()
    claim = _claim(queue)
    queue.change(id_, "lease_until = now() + interval '1 second'")
    assert queue.call(renew_claim, claim, 5000)
    assert 4900 < _seconds_left(queue, id_) <= 5000


@pytest.mark.parametrize("state", ["waiting", "done", "failed", "deleted"])
def test_what_does_not_run_any_more_is_not_renewed(queue: ImportQueue, state: str) -> None:
    id_ = queue.add()
    claim = _claim(queue)
    queue.change(id_, f"state = '{state}'")
    before = queue.row(id_)
    assert not queue.call(renew_claim, claim, 5000)
    queue.call(release_claim, claim, crashed=True)
    queue.call(give_up, claim, Problem("x"))
    assert queue.row(id_) == before


@pytest.mark.parametrize("crashed", [False, True])
def test_a_released_import_waits_again_and_a_crash_is_counted(queue: ImportQueue, crashed: bool) -> None:
    id_ = queue.add()
    queue.call(release_claim, _claim(queue), crashed=crashed)
    row = queue.row(id_)
    assert (row["state"], row["lease_owner"], row["lease_until"]) == ("waiting", None, None)
    assert row["crashes"] == int(crashed)
    assert _claim(queue).crashes == int(crashed)


def test_an_import_that_is_given_up_says_why(queue: ImportQueue) -> None:
    id_ = queue.add()
    queue.call(give_up, _claim(queue), Problem("It ends badly.", code="import_crashed"))
    row = queue.row(id_)
    assert (row["state"], row["problem"]["code"], row["lease_owner"]) == ("failed", "import_crashed", None)
    assert row["finished_at"]
    assert row["lease_until"] is None


def test_a_lost_claim_changes_nothing_of_the_import(queue: ImportQueue, taken_over: tuple[Claim, Claim]) -> None:
    lost, held = taken_over
    before = queue.row(lost.id)
    assert not queue.call(renew_claim, lost, 5000)
    queue.call(release_claim, lost, crashed=True)
    queue.call(give_up, lost, Problem("x"))
    assert queue.row(lost.id) == before
    assert queue.call(renew_claim, held, LEASE)


# Running


def test_a_run_whose_claim_is_lost_stores_and_counts_nothing(
    queue: ImportQueue, taken_over: tuple[Claim, Claim]
) -> None:
    lost, held = taken_over
    before = queue.row(lost.id)
    assert queue.run(lost).result().state is None
    assert queue.row(lost.id) == before
    assert (queue.texts(), _rejects(queue)) == ([], [])
    assert queue.run(held).result() == RunResult(
        ImportState.DONE, {"received": 3, "accepted": 2, "duplicates": 0, "rejected": 1}
    )


def test_a_batch_under_way_is_undone_when_its_claim_is_lost(queue: ImportQueue) -> None:
    id_ = queue.add(lines({"text": "a"}, "nope", {"text": "b"}))
    lost = _claim(queue)
    with queue.barrier("insert on texts") as barrier:
        run = queue.run(lost)
        barrier.wait()
        queue.change(id_, "lease_until = now() - interval '1 second'")
        held = _claim(queue)
        barrier.open()
        assert run.result().state is None
    assert (queue.texts(), _rejects(queue)) == ([], [])
    # Had the lost run stored its rows, these would be duplicates.
    assert queue.run(held).result().counts == {"received": 3, "accepted": 2, "duplicates": 0, "rejected": 1}


def test_a_lost_run_of_an_unreadable_body_does_not_fail_the_import(queue: ImportQueue) -> None:
    id_ = queue.add(lines({"text": "a"}))
    queue.change(id_, "encoding = 'gzip'")
    lost = _claim(queue)
    queue.change(id_, "lease_until = now() - interval '1 second'")
    held = _claim(queue)
    assert queue.run(lost).result().state is ImportState.FAILED  # as far as that run knows
    assert queue.row(id_)["state"] == "running"
    queue.run(held).result()
    row = queue.row(id_)
    assert (row["state"], row["problem"]["code"], row["lease_owner"]) == ("failed", "malformed_encoding", None)
    assert "received" not in row["problem"]


def test_a_lost_all_or_nothing_run_leaves_what_the_holder_has_counted(queue: ImportQueue) -> None:
    id_ = queue.add(lines({"text": "a"}, "nope"), on_error="abort")
    lost = _claim(queue)
    queue.change(id_, "lease_until = now() - interval '1 second'")
    held = _claim(queue)
    assert queue.run(held).result().state is ImportState.FAILED
    queue.change(id_, f"state = 'running', lease_owner = '{held.owner}'")  # as before its last statement
    before, rejects = queue.row(id_), _rejects(queue)
    assert len(rejects) == 1
    assert queue.run(lost).result().state is None
    assert (queue.row(id_), _rejects(queue)) == (before, rejects)


def test_a_deleted_import_stops_at_its_next_batch(queue: ImportQueue) -> None:
    id_ = queue.add(lines({"text": "a"}))
    claim = _claim(queue)
    queue.ask(repository.delete_import, id_)
    assert queue.run(claim).result().state is None
    queue.call(drop_bodies)
    assert queue.run(claim).result().state is None
    assert queue.texts() == []


@pytest.mark.parametrize("on_error", ["skip", "abort"])
def test_a_resumed_import_counts_each_row_once(queue: ImportQueue, on_error: str) -> None:
    rows: list[object] = [{"text": name} for name in "abcadef"]
    if on_error == "skip":
        rows[1:1] = ["nope", ""]
        rows.append("nope")
    id_ = queue.add(lines(*rows), on_error=on_error)
    # A batch has two rows; the process dies at the third one, after it has reported the second.
    with queue.crashing("new.last_row >= 6"):
        crashed = _claim(queue)
        with pytest.raises(psycopg.Error):
            queue.run(crashed).result()
    before = queue.row(id_)
    assert before["last_row"] > 0
    queue.call(release_claim, crashed, crashed=True)
    resumed = _claim(queue)
    assert (resumed.last_row, resumed.crashes) == (before["last_row"], 1)
    outcome = queue.run(resumed).result()
    row = queue.row(id_)
    rejected = 2 if on_error == "skip" else 0
    assert _counts(row) == (7 + rejected, 6, 1, rejected)
    assert (row["state"], row["last_row"], row["bytes_read"]) == ("done", len(rows), row["upload_offset"])
    assert [number for number, _, _ in _rejects(queue)] == ([2, 10] if on_error == "skip" else [])
    assert queue.texts() == list("abcdef")
    # What the process reports for the metrics is what this run has done.
    counted_before = before["received"] if on_error == "skip" else 0
    assert outcome.counts["received"] == row["received"] - counted_before


def test_a_batch_that_is_stored_clears_the_crashes_and_keeps_the_claim(queue: ImportQueue) -> None:
    id_ = queue.add(lines(*[{"text": name} for name in "abc"]))
    queue.change(id_, "crashes = 2")
    claim = _claim(queue)
    queue.change(id_, "lease_until = now() - interval '1 second'")  # and nobody has taken it over
    with queue.crashing("new.last_row >= 3"), pytest.raises(psycopg.Error):
        queue.run(claim).result()
    row = queue.row(id_)
    assert (row["state"], row["last_row"], row["crashes"]) == ("running", 2, 0)
    assert 0 < _seconds_left(queue, id_) <= queue.settings.import_lease_seconds


def test_batches_of_all_or_nothing_are_no_progress(queue: ImportQueue) -> None:
    id_ = queue.add(lines(*[{"text": name} for name in "abc"]), on_error="abort")
    queue.change(id_, "crashes = 2")
    with queue.crashing("new.last_row >= 3"), pytest.raises(psycopg.Error):
        queue.run(_claim(queue)).result()
    assert (queue.row(id_)["last_row"], queue.row(id_)["crashes"]) == (2, 2)


def test_an_import_that_another_run_has_finished_stays_as_it_is(queue: ImportQueue) -> None:
    id_ = queue.add()
    claim = _claim(queue)
    queue.run(claim).result()
    before = queue.row(id_)
    assert (before["state"], before["lease_owner"], before["lease_until"]) == ("done", None, None)
    assert before["finished_at"]
    assert queue.run(claim).result().state is None
    assert queue.row(id_) == before


def test_rejected_rows_are_kept_as_they_were_read_up_to_64_kib(queue: ImportQueue) -> None:
    longest = {"n": "x" * (64 * 1024 - len('{"n":""}'))}
    queue.add(lines({"n": 1}, "nope", longest, {"n": longest["n"] + "x"}, {"text": "a\0", "lab\0l": "tox\0c"}))
    assert queue.run(_claim(queue)).result().counts["rejected"] == 5
    rejects = _rejects(queue)
    assert [number for number, _, _ in rejects] == [1, 2, 3, 4, 5]
    assert [fields is None for _, _, fields in rejects] == [False, True, False, True, False]
    assert rejects[0][2] == '{"n":1}'


def test_rejected_rows_keep_nothing_where_a_dataset_redacts(queue: ImportQueue) -> None:
    private = Dataset(labels=("a", "b"), guidelines="g", redact=("email",))
    queue.add(lines({"text": 5, "source": "bob@example.org"}, {"text": "a"}), dataset="private")
    outcome = queue.run(_claim(queue), {"plain": Dataset(labels=("a", "b"), guidelines="g"), "private": private})
    assert outcome.result().counts["rejected"] == 1
    assert "bob" not in str(queue.fetch("select import_rejects::text from import_rejects"))
    [(_, _, fields)] = _rejects(queue)
    assert fields is None


# Receiving


def test_of_two_pieces_at_the_same_offset_one_is_stored(queue: ImportQueue) -> None:
    id_ = queue.add_open(b"1234")
    with queue.barrier("update on imports") as barrier:
        pieces = [queue.begin_asking(repository.append_chunk, id_, 4, None, data) for data in (b"one", b"other")]
        barrier.wait()
        queue.wait_until_blocked()
        barrier.open()
        assert sorted(piece.result() for piece in pieces) == [False, True]
    assert queue.row(id_)["upload_offset"] == 4 + sum(
        len(data) for (data,) in queue.fetch('select data from import_chunks where "offset" = 4')
    )


@pytest.mark.parametrize(("offset", "length"), [(3, None), (5, None), (4, 99), (4, None)])
def test_a_piece_that_does_not_fit_is_not_stored(queue: ImportQueue, offset: int, length: int | None) -> None:
    id_ = queue.add_open(b"1234")
    queue.change(id_, "upload_length = 10")
    before = queue.row(id_)
    assert not queue.ask(repository.append_chunk, id_, offset, length, b"x")
    assert queue.row(id_) == before
    assert queue.fetch("select count(*) from import_chunks") == [(1,)]
    assert queue.ask(repository.append_chunk, id_, 4, 10, b"56")


@pytest.mark.parametrize("state", ["waiting", "running", "done", "failed", "deleted"])
def test_only_an_import_that_receives_takes_pieces_ends_or_fails_its_upload(
    queue: ImportQueue, state: str
) -> None:
    id_ = queue.add_open(b"1234")
    queue.change(id_, f"state = '{state}'")
    before = queue.row(id_)
    assert not queue.ask(repository.append_chunk, id_, 4, None, b"x")
    assert not queue.ask(repository.complete_upload, id_, 4)
    queue.ask(repository.fail_upload, id_, Problem("x"))
    assert queue.row(id_) == before


def test_an_upload_ends_only_where_its_body_does(queue: ImportQueue) -> None:
    id_ = queue.add_open(b"1234")
    assert not queue.ask(repository.complete_upload, id_, 3)
    assert queue.row(id_)["state"] == "receiving"
    assert queue.ask(repository.complete_upload, id_, 4)
    row = queue.row(id_)
    assert (row["state"], row["upload_length"]) == ("waiting", 4)
    assert row["received_at"]


def test_a_piece_says_that_the_upload_goes_on(queue: ImportQueue) -> None:
    id_ = queue.add_open(b"1234")
    queue.change(id_, "active_at = now() - interval '1 day'")
    assert queue.ask(repository.append_chunk, id_, 4, None, b"5")
    assert queue.fetch("select now() - active_at < '1 hour' from imports") == [(True,)]


# Clearing up


def test_uploads_expire_that_nobody_has_continued_for_so_long(queue: ImportQueue) -> None:
    old, young, complete = queue.add_open(), queue.add_open(), queue.add()
    queue.change(old, "active_at = now() - interval '101 seconds'")
    queue.change(young, "active_at = now() - interval '40 seconds'")
    queue.change(complete, "active_at = now() - interval '1 day'")
    assert queue.call(expire_uploads, 100, Problem("Gone.", code="upload_expired")) == 1
    assert [queue.row(id_)["state"] for id_ in (old, young, complete)] == ["failed", "receiving", "waiting"]
    assert queue.row(old)["problem"]["code"] == "upload_expired"
    assert queue.row(old)["finished_at"]
    assert queue.call(expire_uploads, 100, Problem("Gone.")) == 0


def _add_chunks(queue: ImportQueue, id_: UUID, count: int) -> None:
    queue.fetch(
        "insert into import_chunks (import_id, \"offset\", data) select %s, n, 'x' "
        "from generate_series(100, 99 + %s::int) n returning 1",
        id_,
        count,
    )


def test_bodies_of_ended_imports_are_dropped_part_by_part(queue: ImportQueue) -> None:
    ended, waiting = queue.add(), queue.add()
    queue.change(ended, "state = 'done'")
    _add_chunks(queue, ended, 63)  # with its own, twice what one step drops
    left = "select count(*) from import_chunks where import_id = %s"
    for expected in ([(32,)], [(0,)], [(0,)]):
        assert queue.row(ended)["has_body"]
        assert queue.call(drop_bodies)
        assert queue.fetch(left, ended) == expected
    assert not queue.row(ended)["has_body"]
    assert not queue.call(drop_bodies)
    assert queue.fetch(left, waiting) == [(1,)]


@pytest.mark.parametrize(
    ("state", "is_dropped"),
    [
        ("receiving", False),
        ("waiting", False),
        ("running", False),
        ("done", True),
        ("failed", True),
        ("deleted", True),
    ],
)
def test_a_body_stays_as_long_as_it_may_be_read(queue: ImportQueue, state: str, is_dropped: bool) -> None:
    queue.change(queue.add(), f"state = '{state}'")
    assert queue.call(drop_bodies) == is_dropped
    assert queue.fetch("select count(*) from import_chunks") == [(0 if is_dropped else 1,)]


def test_two_processes_clear_up_different_imports(queue: ImportQueue) -> None:
    added = [queue.add() for _ in range(2)]
    for id_ in added:
        queue.change(id_, "state = 'done'")
    with queue.barrier("delete on import_chunks") as barrier:
        steps = [queue.begin(drop_bodies) for _ in range(2)]
        barrier.wait(2)
        barrier.open()
        assert [step.result() for step in steps] == [True, True]
    assert [queue.row(id_)["has_body"] for id_ in added] == [False, False]


def test_imports_are_deleted_so_long_after_their_end_with_their_rejects(queue: ImportQueue) -> None:
    old, young, deleted, with_body = [queue.add() for _ in range(4)]
    for id_, state, seconds, has_body in (
        (deleted, "deleted", 0, "false"),
        (young, "done", 40, "false"),
        (old, "done", 101, "false"),
        (with_body, "failed", 101, "true"),
    ):
        since = f"finished_at = now() - interval '{seconds} seconds'"
        queue.change(id_, f"state = '{state}', has_body = {has_body}, {since}")
    queue.fetch(
        "insert into import_rejects (import_id, \"row\", code, detail) select %s, n, 'c', 'd' "
        "from generate_series(1, 20000) n returning 1",
        old,
    )
    rejects = []
    for _ in range(4):
        assert queue.call(drop_old, 100)
        rejects += queue.fetch("select count(*) from import_rejects")
    assert rejects == [(10_000,), (0,), (0,), (0,)]
    assert not queue.call(drop_old, 100)
    left = {id_ for (id_,) in queue.fetch("select id from imports")}
    assert left == {young, with_body}
