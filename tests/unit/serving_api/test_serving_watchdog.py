"""Work is stuck when no thread of its kind comes back."""

import math
import time
from pathlib import Path

import duckdb
import pytest

from core.web.problems import Unavailable
from core.web.rate_limits import Places
from serving_api.snapshots import diff
from serving_api.snapshots.diff import Differ
from serving_api.snapshots.manifest import MANIFEST_EXAMPLE, SnapshotManifest
from serving_api.snapshots.storage import Storage
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


ENDLESS = "select count(*) from range(1000000) a, range(1000000) b where a.range + b.range = -1"


def test_a_query_past_its_deadline_is_interrupted() -> None:
    watchdog = Watchdog(30)
    watchdog.start()
    with (
        duckdb.connect() as connection,
        watchdog.crew("queries", 1).working(time.monotonic() + 0.1, connection.interrupt) as job,
        pytest.raises(duckdb.InterruptException),
    ):
        connection.execute(ENDLESS)
    watchdog.stop()
    assert job.is_interrupted


def test_a_comparison_that_takes_too_long_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def endless(database: duckdb.DuckDBPyConnection, *_: object) -> None:
        database.execute(ENDLESS)

    monkeypatch.setattr(diff, "load_compared", endless)
    manifest, watchdog = SnapshotManifest.model_validate(MANIFEST_EXAMPLE), Watchdog(30)
    differ = Differ(Storage(str(tmp_path)), Places("comparisons", 1, 1), watchdog.crew("comparisons", 1), 0.1)
    watchdog.start()
    with pytest.raises(Unavailable, match="took too long") as refusal:
        differ.compare(manifest, manifest, None, 1)
    watchdog.stop()
    assert refusal.value.code == "query_timeout"
