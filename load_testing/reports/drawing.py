"""Draws line plots as SVG with matplotlib: the same bytes for the same data."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter, ScalarFormatter

Points = Sequence[tuple[float, float]]

# Two hues that also differ for readers who do not see all colours (Okabe and Ito), and grey for references.
BLUE, ORANGE, GREY = "#0072B2", "#D55E00", "#777777"
# Line styles of percentiles.
STYLES = {"p50": "-", "p95": "--", "p99": ":"}

# Text stays text, and ids follow from the data.
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
    """What an axis shows, with its unit; `ticks` are (value, word), else matplotlib chooses them."""

    title: str
    logarithmic: bool = False
    ticks: tuple[tuple[float, str], ...] = ()


def draw(title: str, x: Axis, y: Axis, lines: Sequence[Line], note: str = "") -> str:
    """Return the picture; lines without points are left out. `note` stands below it."""
    with mpl.rc_context(_SETTINGS):
        figure = Figure(figsize=_INCHES, layout="constrained")
        axes = figure.subplots()
        axes.set_title(title, loc="left", fontsize=11)
        shown = [line for line in lines if line.points]
        for line in shown:
            _draw_line(axes, line)
        _set_scale(axes, "x", x)
        _set_scale(axes, "y", y)
        # The labels stand right of the last points, on no line of the grid.
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
    """Write each line's label beside its last point, none over another."""
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
