"""The load test finds the faults of a server in this process that stalls, loses texts, and lies."""

from pathlib import Path

import pytest

from tests.integration.load_testing.running import Ended, load_test
from tests.integration.load_testing.small_platform import small_platform

# Seconds after the first request: what arrives from the one to the other is answered at its end.
STALL = (1.5, 2.5)
SECONDS = 5
RATE = 100
OBJECTIVE_MS = 500


@pytest.fixture(scope="module")
def stalled(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Ended]:
    """Both models against a server that stalls for a second, with the same objective."""
    ended = {}
    for model in ("closed", "open"):
        with small_platform(stalls=STALL, is_full=True) as platform:
            ended[model] = load_test(
                tmp_path_factory.mktemp(model),
                platform.url,
                platform.url,
                models=model,
                seconds=SECONDS,
                shape="soak",
                users=2,
                think_seconds=0.006,
                rate=RATE,
                repeats=1,
                objective_get_ms=OBJECTIVE_MS,
            )
    return ended


def test_the_closed_model_hides_a_stall(stalled: dict[str, Ended]) -> None:
    ended = stalled["closed"]
    [run] = ended.report["runs"]
    all_ = next(row for row in run["by_name"] if row["name"] == "all")
    # Its two users saw it once each, at the very top: beyond the p99 of more than 200 requests.
    assert all_["requests"] > 200
    assert all_["max_ms"] > OBJECTIVE_MS
    assert all_["p99_ms"] < OBJECTIVE_MS / 2
    # Nor does it fail that the API was full, and said so.
    assert run["refused"] > 0
    assert ended.code == 0, ended.output


def test_the_open_model_reports_it(stalled: dict[str, Ended]) -> None:
    ended = stalled["open"]
    [run] = ended.report["runs"]
    all_ = next(row for row in run["by_name"] if row["name"] == "all")
    # Nearly the whole second: how nearly, the gaps between arrivals and a busy machine decide.
    assert 700 < all_["max_ms"] < 4000
    assert all_["p99_ms"] > OBJECTIVE_MS
    # Of the arrivals in the stall, one half waited for more than half of its second.
    waited = sum(latency > 500 for latency in _latencies(ended.folder / "open-1"))
    assert 0.25 * RATE / 2 < waited < 3 * RATE / 2
    assert run["dropped"] == 0
    assert run["arrivals"] == run["requests"]
    assert run["generator"]["cpu_share"] < 1
    assert ended.code == 1
    assert f"the objective is {OBJECTIVE_MS} ms" in ended.output


def _latencies(folder: Path) -> list[float]:
    return [float(line.split(",")[3]) for line in (folder / "requests.csv").read_text().splitlines()[1:]]


def test_lost_texts_and_wrong_answers_fail_the_run(tmp_path: Path) -> None:
    with small_platform(loses=lambda text: text.endswith("/0"), lies={"duplicate": True}) as platform:
        ended = load_test(
            tmp_path, platform.url, platform.url, models="open", seconds=2, rate=60, in_flight=100, repeats=1
        )
    [run] = ended.report["runs"]
    assert ended.code == 1
    assert len(run["lost"]) == 1
    assert f"1 of {run['acknowledged']} acknowledged texts are lost: {run['lost'][0]}" in ended.output
    assert "requests failed" in ended.output
    assert "duplicate" in next(iter(run["failures_by_reason"]))


def test_what_does_not_answer_is_named(tmp_path: Path) -> None:
    ended = load_test(tmp_path, "http://127.0.0.1:1", "http://127.0.0.1:1", seconds=1)
    assert ended.code == 1
    assert "http://127.0.0.1:1 does not answer" in ended.output
    assert "make up" in ended.output
