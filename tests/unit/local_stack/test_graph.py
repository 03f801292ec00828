import threading

import pytest

from local_stack.plan import run_side_by_side, stop_order, with_needs


def test_each_waits_for_what_it_needs() -> None:
    done: list[str] = []
    run_side_by_side({"c": {"b"}, "b": {"a"}, "a": set()}, done.append, threading.Event())
    assert done == ["a", "b", "c"]


def test_independent_ones_run_at_the_same_time() -> None:
    both = threading.Barrier(2, timeout=10)

    def action(_: str) -> None:
        both.wait()

    run_side_by_side({"a": set(), "b": set()}, action, threading.Event())


def test_nothing_begins_after_a_failure() -> None:
    begun: list[str] = []
    stop_asked = threading.Event()

    def action(name: str) -> None:
        begun.append(name)
        raise ValueError(name)

    with pytest.raises(ValueError, match="a"):
        run_side_by_side({"a": set(), "b": {"a"}}, action, stop_asked)
    assert begun == ["a"]
    assert stop_asked.is_set()


def test_nothing_begins_after_a_stop() -> None:
    begun: list[str] = []
    stop_asked = threading.Event()

    def action(name: str) -> None:
        begun.append(name)
        stop_asked.set()

    run_side_by_side({"a": set(), "b": {"a"}}, action, stop_asked)
    assert begun == ["a"]


def test_needs_are_found_to_any_depth() -> None:
    assert with_needs({"c"}, {"c": {"b"}, "b": {"a"}, "a": set(), "d": set()}) == {"a", "b", "c"}


def test_users_stop_first_through_steps_in_between() -> None:
    needs = {"program": {"step"}, "step": {"database"}, "database": set[str]()}
    assert stop_order({"program", "database"}, needs) == {"program": set(), "database": {"program"}}
