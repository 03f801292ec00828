"""What a report computes."""

import json
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from load_testing.reports import plots, summaries
from load_testing.reports.percentiles import SHARES, find_knee, percentiles
from load_testing.reports.report import read_run, write_report
from load_testing.reports.summaries import Request
from load_testing.reports.svg import Axis, plot
from load_testing.users.answers import REFUSED
from load_testing.users.run_journal import COLUMNS
from load_testing.users.shape_plans import PLANS

SVG = "{http://www.w3.org/2000/svg}"


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=500))
def test_percentiles_are_numpys(latencies: list[float]) -> None:
    exact = {name: np.quantile(latencies, share, method="inverted_cdf") for name, share in SHARES.items()}
    assert percentiles(latencies) == {name: round(float(value), 3) for name, value in exact.items()}


def test_without_requests_there_are_no_percentiles() -> None:
    assert set(percentiles([]).values()) == {None}


def request(at_s: float, latency_ms: float, users: int = 1, name: str = "ingestion: a text") -> Request:
    return Request(at_s, "POST", name, latency_ms, 0.0, users, "")


def test_kinds_add_up_to_their_api_and_to_all() -> None:
    requests = [request(0.5, 1), request(1, 2), request(4, 9, name="serving: stats")]
    rows = {row["name"]: row for row in summaries.by_name(requests)}
    assert rows.keys() == {
        "all",
        "ingestion: all",
        "ingestion: a text (POST)",
        "serving: all",
        "serving: stats (POST)",
    }
    assert (rows["all"]["requests"], rows["all"]["per_second"], rows["all"]["max_ms"]) == (3, 0.75, 9)
    assert (rows["ingestion: all"]["requests"], rows["ingestion: all"]["p50_ms"]) == (2, 1)


def test_refused_requests_are_counted_apart() -> None:
    refused = request(1, 0.1)._replace(failure=f"{REFUSED}status 503")
    rows = summaries.by_second([request(0.5, 5), request(0.6, 7)._replace(failure="wrong"), refused])
    assert [(r["requests"], r["refused"], r["failures"], r["p50_ms"]) for r in rows] == [
        (2, 0, 1, 5),
        (1, 1, 0, None),
    ]
    # A second without a latency is a gap in the picture.
    assert [len(line) for line in _lines(plots.latency_by_second({"closed": rows}))] == [1]


def test_rates_by_users_are_by_the_time_with_so_many() -> None:
    requests = [request(at / 10, 1, users=1) for at in range(20)] + [
        request(2 + at / 50, 1, 2) for at in range(50)
    ]
    rates = [(row["users"], row["per_second"]) for row in summaries.by_users(requests)]
    assert rates == [(1, 10), (2, 50)]


def test_many_numbers_of_users_become_ten_classes() -> None:
    rows = summaries.by_users([request(users, 1, users) for users in range(1, 51)])
    assert [row["users"] for row in rows] == list(range(5, 51, 5))


@pytest.mark.parametrize(
    ("levels", "knee"),
    [
        ([(10, 100.0), (20, 200.0), (30, 220.0), (40, 221.0)], 20),
        ([(10, 100.0), (20, 190.0), (30, 280.0)], None),
        ([(10, 100.0), (20, 90.0)], 10),
        ([(10, 100.0)], None),
        ([], None),
    ],
)
def test_the_knee_is_where_users_stop_paying(levels: list[tuple[int, float]], knee: int | None) -> None:
    assert find_knee(levels) == knee


@given(st.sampled_from(sorted(PLANS)), st.floats(0, 0.999), st.integers(1, 500))
def test_a_shape_never_has_more_users_than_were_wanted(shape: str, passed: float, users: int) -> None:
    assert 1 <= PLANS[shape](passed, users) <= users


def test_the_shapes_are_what_their_names_say() -> None:
    course = {name: [plan(tenth / 10 + 0.01, 50) for tenth in range(10)] for name, plan in PLANS.items()}
    assert course == {
        "ramp": [1, 11, 21, 31, 41, 50, 50, 50, 50, 50],
        "steps": [5, 10, 15, 20, 25, 30, 35, 40, 45, 50],
        "spike": [5, 5, 5, 5, 50, 50, 5, 5, 5, 5],
        "soak": [50] * 10,
    }
    # One more user each second, when 50 come in 100 s.
    assert [PLANS["ramp"](second / 100, 50) for second in range(1, 51)] == list(range(1, 51))


def _lines(picture: str) -> list[list[tuple[float, float]]]:
    lines = ET.fromstring(picture).iter(f"{SVG}polyline")  # noqa: S314 - our own
    return [
        [(float(x), float(y)) for x, y in (p.split(",") for p in line.attrib["points"].split())] for line in lines
    ]


def test_a_line_goes_up_where_its_values_do_and_stays_inside() -> None:
    [line] = _lines(plot("<&>", Axis("x"), Axis("y"), {"a": [(0, 0), (5, 10), (10, 5)]}))
    assert [x for x, _ in line] == [70, 320, 570]
    assert [y for _, y in line] == [350, 40, 195]


def test_each_tenfold_is_as_far_on_a_logarithmic_axis() -> None:
    [line] = _lines(
        plot("t", Axis("x"), Axis("y", logarithmic=True), {"a": [(0, 1), (1, 10), (2, 100), (3, 1000)]})
    )
    heights = [y for _, y in line]
    assert heights == pytest.approx([350, 246.7, 143.3, 40], abs=0.1)


def test_the_tail_is_drawn_as_far_as_there_are_requests() -> None:
    picture = plots.latency_by_percentile({"closed": [1.0] * 990 + [1000.0] * 10})
    [line] = _lines(picture)
    # Nothing beyond 99.9 % of 1,000 requests; the slow hundredth is at the top.
    assert len(line) == 61
    assert line[-1][1] < line[0][1]
    assert "99.9 %" in picture


def _write_run(folder: Path, latencies: list[float], late_ms: float = 0, **said: Any) -> None:
    folder.mkdir()
    rows = [
        f"{i / 10},GET,serving: stats,{ms + late_ms},{late_ms},{1 + i // 10}," for i, ms in enumerate(latencies)
    ]
    (folder / "requests.csv").write_text("\n".join([",".join(COLUMNS), *rows]) + "\n")
    generator = {"cpu_seconds": 9.0, "wall_seconds": 10.0, "cpu_share": 0.9}
    (folder / "run.json").write_text(json.dumps({"generator": generator, "problems": [], "dropped": 0} | said))


def test_a_report_holds_the_models_against_each_other(tmp_path: Path) -> None:
    _write_run(tmp_path / "closed-1", [1.0] * 99 + [1000.0])
    _write_run(tmp_path / "closed-2", [3.0] * 100)
    _write_run(tmp_path / "open-1", [1.0] * 80 + [900.0] * 20, late_ms=5, problems=["slow"])
    runs = [
        read_run(model, n, tmp_path / f"{model}-{n}") for model, n in [("closed", 1), ("closed", 2), ("open", 1)]
    ]
    report = write_report(tmp_path, {"shape": "steps"}, runs)
    assert report == json.loads((tmp_path / "report.json").read_text())
    assert report["problems"] == ["open, repeat 1: slow"]
    assert report["spread"]["closed"]["all"]["p50_ms"] == {"median": 2.0, "min": 1.0, "max": 3.0}
    assert report["coordinated_omission"]["p99"] == {
        "closed_ms": 3.0,
        "open_ms": 905.0,
        "open_from_sending_ms": 900.0,
        "error_ms": 902.0,
    }
    assert report["runs"][0]["generator"]["too_busy"]
    assert report["runs"][2]["late_ms"]["p50"] == 5
    # Each second has the same number of requests, however many users there are.
    assert report["knee_users"] == 1
    for name in ("latency_by_second", "latency_by_percentile", "latency_by_users", "throughput_by_users"):
        assert _lines((tmp_path / f"{name}.svg").read_text()), name
    for name in ("by_name", "by_users", "by_second"):
        assert len((tmp_path / f"{name}.csv").read_text().splitlines()) > 2, name
