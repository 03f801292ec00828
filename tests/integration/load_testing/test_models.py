"""The load test finds the faults of a server in this process that stalls, loses texts, and lies."""

from pathlib import Path

import pytest

from load_testing.reports import summaries
from load_testing.targets import find_target
from tests.integration.load_testing.running import EndedRun, load_test, run_file
from tests.integration.load_testing.small_platform import small_platform

# Seconds after the first request: what arrives from the one to the other is answered at its end.
STALL = (1.5, 2.5)
RATE = 100
OBJECTIVE_MS = 500


def _run_against_a_stall(name: str, folder: Path, **options: object) -> EndedRun:
    env = {"DATABASE_URL": "", "DATA_DIR": str(folder)}
    with small_platform(stalls=STALL, is_full=True) as platform:
        return run_file(
            name,
            folder / "run",
            platform.url,
            platform.url,
            env,
            run_time="5s",
            objective_get_ms=OBJECTIVE_MS,
            **options,
        )


def test_the_closed_model_hides_a_stall(tmp_path: Path) -> None:
    code, run, log = _run_against_a_stall("locustfile.py", tmp_path, shape="soak", users=2, think_seconds=0.006)
    all_ = next(row for row in summaries.by_name(run.requests) if row["name"] == "all")
    # Its two users saw it once each, at the very top: beyond the p99 of more than 200 requests.
    assert all_["requests"] > 200
    assert all_["max_ms"] > OBJECTIVE_MS
    assert all_["p99_ms"] < OBJECTIVE_MS / 2
    # Nor does it fail that the API was full, and said so.
    assert run.said["refused"] > 0
    assert code == 0, log
    assert f"{run.said['acknowledged']:,} acknowledged, 0 lost" in log
    # Nobody can remove the texts of a platform whose Postgres is not known.
    assert "set DATABASE_URL to have them removed" in log


def test_the_open_model_reports_it(tmp_path: Path) -> None:
    code, run, log = _run_against_a_stall("open_model.py", tmp_path, users=1, rate=RATE, keep=1)
    latencies = [request.latency_ms for request in run.requests]
    # Nearly the whole second: how nearly, the gaps between arrivals and a busy machine decide.
    assert 700 < max(latencies) < 4000
    assert summaries.percentile(latencies, 0.99) > OBJECTIVE_MS
    # Of the arrivals in the stall, one half waited for more than half of its second.
    waited = sum(latency > 500 for latency in latencies)
    assert 0.25 * RATE / 2 < waited < 3 * RATE / 2
    assert run.said["dropped"] == 0
    assert run.said["arrivals"] == run.said["requests"]
    assert run.said["generator"]["cpu_share"] < 1
    assert code == 1
    assert f"the objective is {OBJECTIVE_MS} ms" in log
    assert "have them removed" not in log


def test_lost_texts_and_wrong_answers_fail_the_load_test(tmp_path: Path) -> None:
    with small_platform(loses=lambda text: text.endswith("/0"), lies={"duplicate": True}) as platform:
        ended = load_test(
            tmp_path, platform.url, platform.url, models="open", seconds=2, rate=60, in_flight=100, repeats=1
        )
    [run] = ended.report["runs"]
    assert ended.code == 1
    assert len(run["lost"]) == 1
    assert f"1 of {run['acknowledged']} acknowledged texts are lost: {run['lost'][0]}" in ended.output
    assert f"{run['acknowledged']:,} acknowledged, 1 lost" in ended.output
    assert "requests failed" in ended.output
    assert "duplicate" in next(iter(run["failures_by_reason"]))
    assert {row["name"] for row in run["by_name"]} >= {"ingestion: POST /texts (new)", "ingestion: all"}


def test_what_does_not_answer_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("INGESTION_URL", "SERVING_URL"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    with pytest.raises(SystemExit) as refusal, find_target(0, "loadtest"):
        pytest.fail("The load test would begin.")
    assert "http://127.0.0.1:1 does not answer" in str(refusal.value)
    assert "make up" in str(refusal.value)
