"""Line plots as SVG with matplotlib: the same bytes for the same data."""

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter, ScalarFormatter

from load_testing.reports.summaries import Row, percentile

Points = Sequence[tuple[float, float]]

# Two hues that also differ for readers who do not see all colours (Okabe and Ito), and grey for references.
BLUE, ORANGE, GREY = "#0072B2", "#D55E00", "#777777"
# Line styles of percentiles.
STYLES = {"p50": "-", "p95": "--", "p99": ":"}

# Keep text as text, and make ids from the data.
_SETTINGS: dict[Any, Any] = {
    "svg.hashsalt": "load_testing",
    "svg.fonttype": "none",
    "font.size": 10,
    "font.family": "DejaVu Sans",
}
_INCHES = (7.5, 4.1)
# Lines are labelled at their last point; labels closer than this (in points) move apart.
_LABEL_POINTS = 12


@dataclass(frozen=True)
class Line:
    """A line with a marker at each measured point; `band` are (x, least, greatest) of repeats."""

    label: str
    points: Points
    colour: str = BLUE
    style: str = "-"
    band: Sequence[tuple[float, float, float]] = ()
    has_markers: bool = True


@dataclass(frozen=True)
class Axis:
    """The title of an axis with its unit; `ticks` are (value, label), by default those of matplotlib."""

    title: str
    logarithmic: bool = False
    ticks: tuple[tuple[float, str], ...] = ()


def draw(title: str, x: Axis, y: Axis, lines: Sequence[Line], note: str = "") -> str:
    """Return the picture, without lines that have no points; `note` appears below it."""
    with mpl.rc_context(_SETTINGS):
        figure = Figure(figsize=_INCHES, layout="constrained")
        axes = figure.subplots()
        axes.set_title(title, loc="left", fontsize=11)
        shown = [line for line in lines if line.points]
        for line in shown:
            _draw_line(axes, line)
        _set_scale(axes, "x", x)
        _set_scale(axes, "y", y)
        # Labels are to the right of the last points, outside the grid.
        axes.set_xlim(right=max((x for line in shown for x, _ in line.points), default=1))
        axes.grid(color="#e5e5e5")
        axes.spines[["top", "right"]].set_visible(False)
        figure.draw_without_rendering()
        _label(figure, axes, shown)
        if note:
            figure.supxlabel(note, fontsize=8, color=GREY, x=0.01, ha="left")
        file = io.StringIO()
        figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    # Trailing spaces are matplotlib's.
    return "\n".join(line.rstrip() for line in file.getvalue().splitlines()) + "\n"


def _draw_line(axes: Axes, line: Line) -> None:
    xs, ys = zip(*line.points, strict=True)
    marker = "o" if line.has_markers else ""
    # `gid` names the line in the SVG.
    axes.plot(
        xs,
        ys,
        line.style,
        gid=f"line {line.label}",
        color=line.colour,
        marker=marker,
        markersize=4,
        linewidth=1.6,
        clip_on=False,
    )
    if line.band:
        xs, low, high = zip(*line.band, strict=True)
        axes.fill_between(xs, low, high, color=line.colour, alpha=0.15, linewidth=0)


def _set_scale(axes: Axes, name: str, axis: Axis) -> None:
    set_label, set_scale = getattr(axes, f"set_{name}label"), getattr(axes, f"set_{name}scale")
    set_label(f"{axis.title} (logarithmic)" if axis.logarithmic else axis.title)
    of_axis = getattr(axes, f"{name}axis")
    if axis.logarithmic:
        set_scale("log")
        of_axis.set_minor_formatter(NullFormatter())
        of_axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
    elif name == "y":
        axes.set_ylim(bottom=0)
        of_axis.set_major_formatter(ScalarFormatter(useOffset=False))
    if axis.ticks:
        of_axis.set_ticks([value for value, _ in axis.ticks], [word for _, word in axis.ticks])


def _label(figure: Figure, axes: Axes, lines: Sequence[Line]) -> None:
    """Write each line's label right of its last point, without overlaps."""
    scale = figure.dpi / 72
    places = [(float(axes.transData.transform(line.points[-1])[1]) / scale, line) for line in lines]
    lowest = float("-inf")
    for height, line in sorted(places, key=lambda place: place[0]):
        place = max(height, lowest + _LABEL_POINTS)
        lowest = place
        axes.annotate(
            line.label,
            line.points[-1],
            xytext=(7, place - height),
            textcoords="offset points",
            color=line.colour,
            fontsize=9,
            verticalalignment="center",
            annotation_clip=False,
        )


# The p99 of fewer samples is little more than their maximum.
LEAST_FOR_P99 = 100

_LATENCY = Axis("milliseconds", logarithmic=True)
_COLOURS = {"closed": BLUE, "open": ORANGE}
_NINES = tuple((float(n), word) for n, word in enumerate(("0 %", "90 %", "99 %", "99.9 %", "99.99 %")))
_PLACES = [place / 20 for place in range(81)]


def latency_by_users(rows: Sequence[Row]) -> str:
    """Draw the closed model's latencies against its users: medians of the repeats, with a band."""
    lines = [
        Line(name, points(rows, "users", f"{name}_ms"), BLUE, style, band(rows, f"{name}_ms"))
        for name, style in STYLES.items()
    ]
    return draw("Latency against users, closed model", Axis("users"), _LATENCY, lines, note_on_p99(rows))


def throughput_by_users(rows: Sequence[Row], think_seconds: float = 0) -> str:
    """Draw the closed model's responses and its offered load (users divided by mean pause) against its users."""
    lines = [Line("answered", points(rows, "users", "per_second"), BLUE, band=band(rows, "per_second"))]
    lines += offered_line(rows, think_seconds, max((row["per_second"] for row in rows), default=0))
    return draw("Requests per second against users, closed model", Axis("users"), Axis("requests/s"), lines)


def latency_by_second(rows_by_model: Mapping[str, Sequence[Row]]) -> str:
    """Draw the p50 and the maximum of each second, one repeat after the other.

    Few seconds have the 100 requests that a p99 needs.
    """
    lines = [
        Line(f"{model}, {word}", points(rows, "second", f"{name}_ms"), _COLOURS[model], style, has_markers=False)
        for model, rows in rows_by_model.items()
        for name, word, style in (("p50", "p50", "-"), ("max", "maximum", ":"))
    ]
    return draw("Latency in each second", Axis("seconds, one repeat after the other"), _LATENCY, lines)


def latency_by_percentile(latencies_by_model: Mapping[str, Sequence[float]]) -> str:
    """Draw the whole distribution of latencies, with an enlarged tail."""
    lines = [
        Line(f"{model}, n = {len(latencies):,}", _tail(sorted(latencies)), _COLOURS[model], has_markers=False)
        for model, latencies in latencies_by_model.items()
    ]
    return draw("Latency by percentile", Axis("percentile", ticks=_NINES), _LATENCY, lines)


def offered_line(rows: Sequence[Row], think_seconds: float, most: float) -> list[Line]:
    """Return the line of the offered load, as if responses took no time; none if it is far above `most`."""
    if not rows or not think_seconds or rows[-1]["users"] / think_seconds > 10 * max(most, 1):
        return []
    return [Line("offered", [(row["users"], row["users"] / think_seconds) for row in rows], GREY, "--")]


def points(rows: Sequence[Row], across: str, up: str, count: str = "requests") -> Points:
    """Return the points of a line; a row without a value, or with too few samples for a p99, is a gap."""
    return [(row[across], row[up]) for row in rows if row[up] is not None and _is_shown(row, up, count)]


def band(rows: Sequence[Row], name: str, count: str = "requests") -> list[tuple[float, float, float]]:
    """Return (users, lowest repeat, highest repeat) for a line; empty for rows of a single run."""
    return [
        (row["users"], row[f"{name}_least"], row[f"{name}_most"])
        for row in rows
        if row.get(f"{name}_least") is not None and _is_shown(row, name, count)
    ]


def note_on_p99(rows: Sequence[Row], count: str = "requests") -> str:
    """Return a sentence about the levels with too few samples for a p99; empty if there is none."""
    few = {row["users"]: _samples(row, count) for row in rows if _samples(row, count) < LEAST_FOR_P99}
    if not few:
        return ""
    least, most = min(few.values()), max(few.values())
    n = f"{least} to {most}" if least < most else str(least)
    return f"no p99 of fewer than {LEAST_FOR_P99} samples (users {', '.join(map(str, few))}: n = {n})"


def _is_shown(row: Row, name: str, count: str) -> bool:
    return name != "p99_ms" or _samples(row, count) >= LEAST_FOR_P99


def _samples(row: Row, count: str) -> int:
    """Return the samples behind a row's percentiles: those of the smallest repeat."""
    least = row.get(f"{count}_least")
    return int(row[count] if least is None else least)


def _tail(ordered: Sequence[float]) -> Points:
    """Return (nines, latency), as far as there are enough requests."""
    furthest = math.log10(len(ordered)) if ordered else -1
    return [(place, percentile(ordered, 1 - 10**-place)) for place in _PLACES if place <= furthest]
