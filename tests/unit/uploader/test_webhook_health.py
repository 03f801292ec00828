"""Tests of uploader.argilla.webhook: when events are missing."""

from datetime import UTC, datetime, timedelta

import pytest

from uploader.argilla.webhook import WebhookHealth

_START = datetime(2026, 1, 1, tzinfo=UTC)


def _at(seconds: float) -> datetime:
    return _START + timedelta(seconds=seconds)


def _late(*looks: tuple[float, float | None, float | None, float]) -> bool:
    """Look at (activity, last sweep's activity, newest event, clock); return whether an event is missing."""
    health = WebhookHealth(10)
    for activity, swept, applied, now in looks:
        swept_at, applied_at = (None if moment is None else _at(moment) for moment in (swept, applied))
        health.see(_at(activity), swept_at, applied_at, now)
    return health.is_late(looks[-1][3], None)


def test_activity_that_a_sweep_saw_needs_no_event() -> None:
    assert not _late((5, 5, None, 0), (5, 5, None, 1000))


def test_activity_with_its_event_is_explained() -> None:
    assert not _late((5, 0, 5.01, 0), (5, 0, 5.01, 1000))


def test_an_event_that_was_made_just_before_its_activity_explains_it() -> None:
    assert not _late((5, 0, 4.99, 0), (5, 0, 4.99, 1000))


def test_an_event_has_time_to_come() -> None:
    assert not _late((5, 0, None, 0), (5, 0, None, 10))
    assert _late((5, 0, None, 0), (5, 0, None, 10.1))


def test_activity_that_goes_on_does_not_hide_a_missing_event() -> None:
    assert _late(*((second, 0, None, second) for second in range(1, 13)))


def test_events_that_keep_coming_a_little_late_are_enough() -> None:
    assert not _late(*((second, 0, second - 3, second) for second in range(1, 100)))


def test_trust_comes_back_with_the_events_or_with_a_sweep() -> None:
    assert not _late((5, 0, None, 0), (5, 0, None, 20), (21, 0, 21, 21))
    assert not _late((5, 0, None, 0), (5, 0, None, 20), (5, 5, None, 21))


def test_an_earlier_activity_than_the_last_one_is_explained() -> None:
    # Argilla committed the later moment first.
    assert not _late((5, 0, 6, 0), (4.9, 0, 6, 100))


@pytest.mark.parametrize(
    ("sweep_seconds", "waited", "is_late"),
    [(0.01, 0.2, False), (0.01, 0.3, True), (5, 4, False), (5, 6, True), (1000, 9, False), (1000, 11, True)],
)
def test_an_event_is_waited_for_as_long_as_a_sweep_takes(
    sweep_seconds: float, waited: float, is_late: bool
) -> None:
    health = WebhookHealth(10)
    health.see(_at(5), _at(0), None, 100)
    assert health.is_late(100 + waited, sweep_seconds) is is_late
