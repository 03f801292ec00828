"""While Postgres is unreachable, the follower reports it, retries with growing pauses, and stops immediately."""

from pathlib import Path

from prometheus_client import REGISTRY
from structlog.testing import capture_logs

from core.web.keys import KeyRing
from serving_api.replica.follower import Follower
from serving_api.replica.replica import Replica
from serving_api.settings import ReplicaSettings
from tests.programs import free_port
from tests.waiting import wait_for


def test_it_tries_again_after_pauses_that_double_and_can_be_stopped_in_one(tmp_path: Path) -> None:
    replica = Replica(tmp_path / "replica.duckdb", ReplicaSettings(threads=1))
    replica.open()
    url = f"postgresql://nobody:x@127.0.0.1:{free_port()}/none"
    follower = Follower(replica, url, ReplicaSettings(poll_seconds=0.01), KeyRing(False, None))
    errors = REGISTRY.get_sample_value("serving_feed_errors_total") or 0
    with capture_logs() as logs:
        follower.start()
        wait_for(lambda: len(logs) >= 3)
        follower.stop(60)
    replica.close()
    failures = [entry for entry in logs if entry["event"] == "feed.failed"]
    assert [entry["retry_seconds"] for entry in failures[:3]] == [0.2, 0.4, 0.8]
    assert follower.error == failures[0]["kind"] == "OperationalError"
    assert REGISTRY.get_sample_value("serving_feed_errors_total") == errors + len(failures)
    assert follower.rebuilding is None
