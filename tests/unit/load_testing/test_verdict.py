"""What fails a run."""

from typing import Any

from load_testing.users.checks import REFUSED
from load_testing.users.load_run import Journal, Lookup, problems

NO_OBJECTIVES = {"post": 0.0, "get": 0.0}
ALL_THERE = Lookup(3, [], [])


def journal(*requests: tuple[str, float, str]) -> Journal:
    noted = Journal("seed")
    for objective, latency_ms, failure in requests:
        context: dict[str, Any] = {"at": 0.0, "late_ms": 0.0, "users": 1, "objective": objective}
        noted.note("POST", "a", latency_ms, context, failure)
    return noted


def test_nothing_wrong() -> None:
    assert problems(journal(("post", 5.0, "")), ALL_THERE, {"post": 5.0, "get": 1.0}) == []


def test_a_lost_text() -> None:
    [problem] = problems(journal(("post", 5.0, "")), Lookup(3, ["some-id"], []), NO_OBJECTIVES)
    assert problem == "1 of 3 acknowledged texts are lost: some-id"


def test_a_text_that_could_not_be_looked_up() -> None:
    [problem] = problems(journal(("post", 5.0, "")), Lookup(3, [], ["some-id"]), NO_OBJECTIVES)
    assert problem == "1 of 3 acknowledged texts could not be looked up: some-id"


def test_a_missed_objective_names_itself_and_others_do_not_count() -> None:
    slow = journal(*[("post", 1.0, "")] * 98, ("post", 70.0, ""), ("post", 80.0, ""), ("", 900.0, ""))
    assert problems(slow, ALL_THERE, {"post": 69.9, "get": 1.0}) == [
        "p99 of POST /texts is 70.0 ms; the objective is 69.9 ms"
    ]
    assert problems(slow, ALL_THERE, {"post": 70.0, "get": 1.0}) == []


def test_failed_requests_and_dropped_arrivals() -> None:
    noted = journal(("get", 1.0, "wrong"), ("get", 1.0, ""))
    noted.counts["dropped"] = 2
    assert problems(noted, ALL_THERE, NO_OBJECTIVES) == [
        "1 of 2 requests failed",
        "2 arrivals were dropped: too many requests were under way (--in-flight)",
    ]


def test_a_refused_request_neither_fails_the_run_nor_flatters_it() -> None:
    noted = journal(("get", 9.0, ""), *[("get", 1.0, f"{REFUSED}status 503")] * 200)
    assert problems(noted, ALL_THERE, {"post": 0.0, "get": 8.0}) == [
        "p99 of GET without exports is 9.0 ms; the objective is 8 ms"
    ]
    assert (noted.counts["requests"], noted.counts["refused"], noted.counts["failures"]) == (201, 200, 0)


def test_a_run_that_did_nothing() -> None:
    assert problems(Journal("seed"), Lookup(0, [], []), NO_OBJECTIVES) == ["no request was sent"]
