"""The cores of each part, and the computations from the sizes of a text, with their text in the README."""

import json
import os
from pathlib import Path

from load_testing import measured
from load_testing.reports.report import Run, core_shares
from load_testing.reports.summaries import write_rows
from load_testing.targets import CoreSample

SIZING = {
    "labelled_texts": 1000,
    "records": 50,
    "annotators": 3,
    "postgres_bytes_per_text": 2**30 // 1000,
    "replica_bytes_per_text": 500,
    "argilla_bytes_per_record": 2000,
    "index_bytes_per_record": 1000,
    "uploads_per_second": 100.0,
    "answers_per_second": 20.0,
    "serving_memory": 300,
    "many_texts": 1_000_000,
    "page_p50_ms": 2.5,
    "memory_postgres": 100,
    "memory_argilla": 400,
}


def test_cores_are_those_of_the_time_in_which_requests_were_sent(tmp_path: Path) -> None:
    (tmp_path / "requests.csv").touch()
    os.utime(tmp_path / "requests.csv", (110, 110))
    run = Run("closed", 1, tmp_path, {"generator": {"wall_seconds": 10, "cpu_share": 0.75}}, [])
    # What comes before and after is the start and the look-up.
    samples = [
        CoreSample(90, {"argilla": 0, "redis": 0}),
        *(CoreSample(at, {"argilla": at * 0.5, "redis": 1.0}) for at in range(100, 111)),
        CoreSample(120, {"argilla": 99, "redis": 9}),
    ]
    assert core_shares(samples, run) == [
        {"part": "load generator", "cores": 0.75},
        {"part": "argilla", "cores": 0.5},
        {"part": "redis", "cores": 0.0},
    ]
    assert core_shares(samples[:2], run) == []


def test_sizes_follow_from_the_figures(tmp_path: Path) -> None:
    (tmp_path / "sizing").mkdir()
    rows = [{"name": name, "value": value, "unit": "x"} for name, value in SIZING.items()]
    write_rows(tmp_path / "sizing" / "sizing.csv", rows)
    told = {
        name: measured.page(f"<!-- measured: {name} -->\n<!-- end -->", tmp_path)
        for name in ("sizes", "rates", "page")
    }
    assert "| 1,000,000 | 1,000.00 GiB | 0.47 GiB | 1.86 GiB | 0.93 GiB | 2.8 h |" in told["sizes"]
    assert "8.6 million a day" in told["rates"]
    assert "the load of 100" in told["rates"]
    assert "together 500." in told["rates"]
    assert "With 1,000,000 labelled texts, version 2 returns" in told["page"]
    assert " in 2.5 ms (p50, one client" in told["page"]


def test_the_knee_is_told_with_its_users(tmp_path: Path) -> None:
    folder = tmp_path / "steps"
    folder.mkdir()
    names = ("p50_ms", "p95_ms", "p99_ms")
    levels = {4: 400.0, 8: 800.0, 12: 850.0}
    rows = [
        {"users": users, "refused": 0, "failures": 0, "per_second": rate, **dict.fromkeys(names, users * 1.5)}
        for users, rate in levels.items()
    ]
    write_rows(folder / "by_users.csv", rows)
    settings = {"processors": 2, "seconds": 9, "repeats": 3, "labelled_texts": 10, "load_average_before": 0.5}
    (folder / "report.json").write_text(json.dumps({"settings": settings}))
    told = measured.page("<!-- measured: knee -->\n<!-- end -->", tmp_path)
    assert "The knee is at 8 users: beyond it, no level adds half" in told
    assert "The maximum is 850 requests a second, with 12 users and a p99 of 18 ms" in told


def test_a_kind_of_requests_has_one_line_whatever_the_repeats(tmp_path: Path) -> None:
    (tmp_path / "steps").mkdir()
    latencies = {"p50_ms": 2.0, "p95_ms": 3.0, "p99_ms": 4.0}
    rows = [
        {"model": "closed", "repeat": repeat, "name": name, "requests": 1000} | latencies
        for repeat in (1, 2, 3)
        for name in ("all", "serving: GET /texts")
    ]
    write_rows(tmp_path / "steps" / "by_name.csv", rows)
    told = measured.page("<!-- measured: kinds -->\n<!-- end -->", tmp_path)
    assert [line for line in told.splitlines() if "GET" in line] == [
        "| serving: GET /texts | 3,000 | 2.0 | 3.0 | 4.0 |"
    ]
