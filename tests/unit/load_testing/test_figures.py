"""What a report computes."""

import json
import re
import xml.etree.ElementTree as ET
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from load_testing.reports import plots, summaries
from load_testing.reports.plots import Axis, Line, draw
from load_testing.reports.report import read_run, write_report
from load_testing.reports.summaries import COLUMNS, SHARES, Request, find_knee, percentiles
from load_testing.users.checks import REFUSED
from load_testing.users.load_run import PLANS

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
        "ingestion: POST a text",
        "serving: all",
        "serving: POST stats",
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
    assert len(_lines(plots.latency_by_second({"closed": rows}))["closed, p50"]) == 1


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
        # One noisy level is no knee.
        ([(4, 97.0), (8, 99.0), (12, 260.0)], None),
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


def _lines(picture: str) -> dict[str, list[tuple[float, float]]]:
    """Return the corners of each line by its label, in the picture's points from the top left."""
    groups = ET.fromstring(picture).iter(f"{SVG}g")  # noqa: S314 - our own
    named = {group.attrib["id"][5:]: group for group in groups if group.attrib.get("id", "").startswith("line ")}
    paths = {label: group.find(f"{SVG}path") for label, group in named.items()}
    return {
        label: [(float(x), float(y)) for x, y in re.findall(r"[ML] (\S+) (\S+)", path.attrib["d"])]
        for label, path in paths.items()
        if path is not None
    }


def test_a_picture_is_the_same_for_the_same_data_and_shows_its_words() -> None:
    lines = [Line("a < b", [(0, 0), (5, 10), (10, 5)])]
    picture = draw("<&>", Axis("x"), Axis("y", logarithmic=False), lines, "n = 3")
    assert picture == draw("<&>", Axis("x"), Axis("y"), lines, "n = 3")
    words = {"".join(text.itertext()) for text in ET.fromstring(picture).iter(f"{SVG}text")}  # noqa: S314 - our own
    assert words >= {"<&>", "x", "y", "a < b", "n = 3"}


def test_a_line_goes_up_where_its_values_do() -> None:
    line = _lines(draw("t", Axis("x"), Axis("y"), [Line("a", [(0, 0), (5, 10), (10, 5)])]))["a"]
    assert line[0][0] < line[1][0] < line[2][0]
    assert line[1][1] < line[2][1] < line[0][1]


def test_each_tenfold_is_as_far_on_a_logarithmic_axis_which_says_so() -> None:
    points = [(0, 1), (1, 10), (2, 100), (3, 1000)]
    picture = draw("t", Axis("x"), Axis("y", logarithmic=True), [Line("a", points)])
    heights = [y for _, y in _lines(picture)["a"]]
    steps = [a - b for a, b in pairwise(heights)]
    assert steps == pytest.approx([steps[0]] * 3, abs=0.1)
    assert "y (logarithmic)" in picture


def test_labels_of_lines_that_end_together_do_not_overlap() -> None:
    picture = draw("t", Axis("x"), Axis("y"), [Line(name, [(0, 1), (1, 1)]) for name in ("one", "two", "three")])
    texts = ET.fromstring(picture).iter(f"{SVG}text")  # noqa: S314 - our own
    found = {text.text: text for text in texts if text.text in {"one", "two", "three"}}
    heights = sorted(float(text.attrib["y"]) for text in found.values())
    assert len(heights) == 3
    assert all(more - less > 10 for less, more in pairwise(heights))


def test_a_p99_of_few_samples_is_left_out_and_said() -> None:
    rows = [
        {"users": users, "requests": n, "p50_ms": 1.0, "p95_ms": 2.0, "p99_ms": 3.0}
        for users, n in [(1, 99), (2, 100)]
    ]
    picture = plots.latency_by_users(rows)
    assert {label: len(line) for label, line in _lines(picture).items()} == {"p50": 2, "p95": 2, "p99": 1}
    assert "no p99 of fewer than 100 samples (users 1: n = 99)" in picture


def test_the_offered_load_stands_beside_what_was_answered() -> None:
    rows = [{"users": 10, "per_second": 18.0}, {"users": 20, "per_second": 30.0}]
    assert _lines(plots.throughput_by_users(rows, think_seconds=0.5)).keys() == {"answered", "offered"}
    # Users without pauses offer more than the picture could show.
    assert _lines(plots.throughput_by_users(rows, think_seconds=0.001)).keys() == {"answered"}


def test_repeats_become_medians_with_a_band() -> None:
    repeats = [[request(at / 10, ms) for at in range(1, 20)] for ms in (1, 9, 2)]
    rows = summaries.merge_repeats((row for found in repeats for row in summaries.by_users(found)), ["users"])
    [row] = rows
    assert row["requests_least"] == 19
    assert (row["requests"], row["p50_ms"], row["p50_ms_least"], row["p50_ms_most"]) == (57, 2, 1, 9)
    assert "FillBetween" in plots.latency_by_users(rows)


def test_the_tail_is_drawn_as_far_as_there_are_requests() -> None:
    picture = plots.latency_by_percentile({"closed": [1.0] * 990 + [1000.0] * 10})
    line = _lines(picture)["closed, n = 1,000"]
    # Nothing beyond 99.9 % of 1,000 requests; the slow hundredth is at the top.
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
