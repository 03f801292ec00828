"""Work is stuck when no thread of its kind comes back."""

import math
import time

from serving_api.watchdog import Crew, Watchdog

_PAST = time.monotonic() - 100


def test_only_all_threads_of_a_kind_are_stuck() -> None:
    watchdog = Watchdog(30)
    queries, exports = watchdog.crew("queries", 2), watchdog.crew("exports", 1)
    assert watchdog.stuck() is None
    with queries.working(_PAST), exports.working(math.inf) as export:
        assert (queries.overdue, exports.overdue) == (1, 0)
        assert watchdog.stuck() is None
        with queries.working(time.monotonic() - 1):
            assert queries.overdue == 2  # one of them for less than 30 seconds
            assert watchdog.stuck() is None
        with queries.working(_PAST):
            assert str(watchdog.stuck()).startswith("queries are stuck")
            export.until = _PAST
            assert str(watchdog.stuck()).startswith("queries, exports are stuck")
        assert str(watchdog.stuck()).startswith("exports are stuck")
    assert watchdog.stuck() is None
    assert queries.overdue == exports.overdue == 0


def test_work_that_waits_for_a_storage_has_longer() -> None:
    crew = Watchdog(30).crew("queries of snapshots", 1, more_seconds=1000)
    with crew.working(_PAST):
        assert crew.overdue == 1
        assert not crew.is_stuck


def test_work_that_fails_is_no_longer_under_way() -> None:
    crew = Crew("queries", 1, 0)
    try:
        with crew.working(_PAST):
            raise ValueError
    except ValueError:
        pass
    assert crew.overdue == 0
