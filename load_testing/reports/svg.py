"""Line plots as SVG: a few hundred bytes of text, the same each time for the same data."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

Points = Sequence[tuple[float, float]]

_WIDTH, _HEIGHT = 720, 400
_LEFT, _RIGHT, _TOP, _BOTTOM = 70, 150, 40, 50
# Distinct for those who do not see all colours, too (Okabe and Ito).
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_TICKS = 6


@dataclass(frozen=True)
class Axis:
    """What an axis shows; `ticks` are (value, word), else they are chosen."""

    title: str
    logarithmic: bool = False
    ticks: tuple[tuple[float, str], ...] = ()


class _Scale:
    def __init__(self, axis: Axis, values: Sequence[float], start: float, end: float) -> None:
        self._logarithmic = axis.logarithmic
        shown = [*values, *(value for value, _ in axis.ticks)] or [0]
        low, high = min(shown), max(shown)
        low = low if axis.logarithmic else min(low, 0)
        if axis.logarithmic:
            low = 10 ** math.floor(math.log10(max(low, 1e-3)))
            high = 10 ** math.ceil(math.log10(max(high, low * 1.01)))
        high = high if high > low else low + 1
        self._step = _round_step((high - low) / _TICKS)
        # Up to a round number: a line on the frame is hard to see.
        self._low, self._high = low, high if axis.logarithmic else math.ceil(high / self._step) * self._step
        self._start, self._end = start, end
        self.ticks = axis.ticks or tuple((value, f"{value:g}") for value in self._choose_ticks())

    def place(self, value: float) -> float:
        low, high = self._low, self._high
        if self._logarithmic:
            value, low, high = math.log10(max(value, low)), math.log10(low), math.log10(high)
        return round(self._start + (value - low) / (high - low) * (self._end - self._start), 1)

    def _choose_ticks(self) -> list[float]:
        if self._logarithmic:
            powers = range(round(math.log10(self._low)), round(math.log10(self._high)) + 1)
            return [10.0**power for power in powers]
        first, last = math.ceil(self._low / self._step), round(self._high / self._step)
        return [round(number * self._step, 10) for number in range(first, last + 1)]


def _round_step(least: float) -> float:
    power = 10 ** math.floor(math.log10(least))
    return float(next(factor * power for factor in (1, 2, 5, 10) if factor * power >= least))


def plot(title: str, x: Axis, y: Axis, lines: dict[str, Points]) -> str:
    """Return a picture of lines by their names."""
    points = [point for line in lines.values() for point in line]
    across = _Scale(x, [point[0] for point in points], _LEFT, _WIDTH - _RIGHT)
    up = _Scale(y, [point[1] for point in points], _HEIGHT - _BOTTOM, _TOP)
    parts = [_text(_LEFT, 22, title, "start", 15), *_axes(x, y, across, up)]
    for number, (name, line) in enumerate(lines.items()):
        colour = _COLOURS[number % len(_COLOURS)]
        path = " ".join(f"{across.place(a)},{up.place(b)}" for a, b in line)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.8"/>')
        if len(line) == 1:
            a, b = line[0]
            parts.append(f'<circle cx="{across.place(a)}" cy="{up.place(b)}" r="3" fill="{colour}"/>')
        height = _TOP + 10 + 20 * number
        start = _WIDTH - _RIGHT + 15
        ends = f'x1="{start}" x2="{start + 20}" y1="{height}" y2="{height}"'
        parts.append(f'<line {ends} stroke="{colour}" stroke-width="3"/>')
        parts.append(_text(start + 26, height + 4, name, "start"))
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" width="{_WIDTH}" '
        f'height="{_HEIGHT}" font-family="sans-serif" font-size="12">'
    )
    return "\n".join([head, f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="white"/>', *parts, "</svg>"]) + "\n"


def _axes(x: Axis, y: Axis, across: _Scale, up: _Scale) -> list[str]:
    bottom, right = _HEIGHT - _BOTTOM, _WIDTH - _RIGHT
    parts = []
    for value, word in across.ticks:
        place = across.place(value)
        parts.append(f'<line x1="{place}" x2="{place}" y1="{_TOP}" y2="{bottom}" stroke="#e5e5e5"/>')
        parts.append(_text(place, bottom + 17, word, "middle"))
    for value, word in up.ticks:
        place = up.place(value)
        parts.append(f'<line x1="{_LEFT}" x2="{right}" y1="{place}" y2="{place}" stroke="#e5e5e5"/>')
        parts.append(_text(_LEFT - 8, place + 4, word, "end"))
    parts.append(_text((_LEFT + right) / 2, _HEIGHT - 12, x.title, "middle"))
    middle = (_TOP + bottom) / 2
    turned = f'text-anchor="middle" transform="rotate(-90 18 {middle})"'
    parts.append(f'<text x="18" y="{middle}" {turned}>{escape(y.title)}</text>')
    return parts


def _text(x: float, y: float, words: str, anchor: str, size: int = 12) -> str:
    return f'<text x="{x}" y="{y}" text-anchor="{anchor}" font-size="{size}">{escape(words)}</text>'
