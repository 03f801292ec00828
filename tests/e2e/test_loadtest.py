"""`make loadtest`, in short, on the real platform."""

import threading
from pathlib import Path

import psycopg

from core.datasets import DEFAULT_DATASET
from local_stack.testing import RunningStack
from tests.integration.load_testing.running import load_test
from tests.waiting import wait_for

# Several: one that is sent again comes back.
LOST = [f"post-losing-closed-1-{number}" for number in range(20)]
COUNT = "select count(*) from texts where external_id = any(%s)"
LOSE = "delete from texts where external_id = any(%s)"


def test_it_finds_nothing_wrong_and_writes_its_report(stack: RunningStack, tmp_path: Path) -> None:
    ended = load_test(
        tmp_path,
        stack.ingestion_url,
        stack.serving_url,
        seconds=3,
        users=4,
        think_seconds=0.1,
        repeats=1,
        dataset=DEFAULT_DATASET,
    )
    assert ended.code == 0, ended.output
    report = ended.report
    assert report["problems"] == []
    assert [run["model"] for run in report["runs"]] == ["closed", "open"]
    for run in report["runs"]:
        assert run["requests"] > 10
        assert run["looked_up"] == run["acknowledged"] > 0
        assert (ended.folder / run["folder"] / "locust_stats.csv").is_file()
        assert "<html" in (ended.folder / run["folder"] / "locust.html").read_text()
    assert report["coordinated_omission"]["p99"]["open_ms"] > 0
    assert (ended.folder / "latency_by_percentile.svg").is_file()


def test_a_lost_text_and_a_missed_objective_fail_it(stack: RunningStack, tmp_path: Path) -> None:
    def lose() -> None:
        with psycopg.connect(stack.database_url, autocommit=True) as connection:
            wait_for(lambda: connection.execute(COUNT, [LOST]).fetchone() == (len(LOST),))
            connection.execute(LOSE, [LOST])

    loser = threading.Thread(target=lose)
    loser.start()
    ended = load_test(
        tmp_path,
        stack.ingestion_url,
        stack.serving_url,
        models="closed",
        shape="soak",
        seconds=3,
        users=4,
        think_seconds=0.1,
        repeats=1,
        seed="losing",
        objective_post_ms=0.001,
        dataset=DEFAULT_DATASET,
    )
    loser.join()
    assert ended.code == 1
    assert "acknowledged texts are lost" in ended.output
    assert "p99 of POST /texts" in ended.output
