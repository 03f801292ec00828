"""Reads a draw.io source: the subset of the format that the figures use, and nothing silently left out.

A figure is boxes (which may hold boxes), lines of straight pieces between fixed points of two boxes, and text of
whole lines, plain or bold. What else diagrams.net can draw is refused, so that a picture never lacks what its
source has. All lengths are in pixels.
"""

import html
import re
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from itertools import pairwise
from math import dist
from pathlib import Path
from typing import NamedTuple

# Styles that say what is drawn anyway.
_WITHOUT_EFFECT = {"html", "whiteSpace", "aspect", "container", "collapsible"}
_TEXT_STYLES = {"fontSize", "fontColor"}
_BOX_STYLES = {"rounded", "absoluteArcSize", "arcSize", "ellipse", "fillColor", "strokeColor", "dashed"}
_BOX_STYLES |= {"align", "verticalAlign", "spacingLeft", "spacingTop"}
_LINE_STYLES = {"rounded", "strokeColor", "dashed", "endArrow", "startArrow", "labelBackgroundColor"}
_END_STYLES = {"exitX", "exitY", "entryX", "entryY"}

# diagrams.net finds cells by id in a JavaScript array: these it takes for the array's own, and opens nothing.
_TAKEN_IDS = {
    "at",
    "concat",
    "constructor",
    "copyWithin",
    "entries",
    "every",
    "fill",
    "filter",
    "find",
    "findIndex",
}
_TAKEN_IDS |= {"findLast", "findLastIndex", "flat", "flatMap", "forEach", "includes", "indexOf", "join", "keys"}
_TAKEN_IDS |= {"lastIndexOf", "length", "map", "pop", "push", "reduce", "reduceRight", "reverse", "shift", "slice"}
_TAKEN_IDS |= {
    "some",
    "sort",
    "splice",
    "toReversed",
    "toSorted",
    "toSpliced",
    "toString",
    "unshift",
    "values",
    "with",
}

LINE_HEIGHT = 1.2  # of the font size; draw.io's
PADDING = 2  # between a box and its text, beside what its style says


class FigureError(ValueError):
    """A source that cannot be drawn."""


class Point(NamedTuple):
    x: float
    y: float


class Area(NamedTuple):
    x: float
    y: float
    width: float
    height: float

    def at(self, x: float, y: float) -> Point:
        """Return the point at these shares (0 to 1) of the area's width and height."""
        return Point(self.x + x * self.width, self.y + y * self.height)


@dataclass(frozen=True)
class TextLine:
    text: str
    bold: bool


@dataclass(frozen=True)
class Box:
    id: str
    parent: str | None
    area: Area
    lines: list[TextLine]
    style: dict[str, str]

    @property
    def is_mark(self) -> bool:
        """Whether it is a circle with a number or letter, which may lie on a line."""
        return "ellipse" in self.style


@dataclass(frozen=True)
class Line:
    id: str
    source: str
    target: str
    points: list[Point]
    label_at: Point
    lines: list[TextLine]
    style: dict[str, str]


@dataclass(frozen=True)
class Figure:
    title: str
    width: float
    height: float
    boxes: list[Box]
    lines: list[Line]

    def ancestors(self, box_id: str) -> set[str]:
        """Return the ids of the boxes that the box is in."""
        parents = {box.id: box.parent for box in self.boxes}
        found: set[str] = set()
        while (parent := parents[box_id]) is not None:
            found.add(parent)
            box_id = parent
        return found


def read(path: Path) -> Figure:
    """Return the figure of a source with one page.

    Raises:
        FigureError: Something in it cannot be drawn; the message names the cell and what is wrong.
    """
    try:
        root = ET.parse(path).getroot()  # noqa: S314 (our own files)
    except ET.ParseError as error:
        raise FigureError(f"{path.name} is not XML: {error}") from None
    model = root.find("diagram/mxGraphModel")
    if root.tag != "mxfile" or model is None:
        raise FigureError(f"{path.name} is no draw.io file, or a compressed one: save it uncompressed")
    cells = {cell.get("id", ""): cell for cell in model.iter("mxCell")}
    if len(cells) != len(list(model.iter("mxCell"))):
        raise FigureError(f"{path.name}: two cells have the same id")
    if taken := _TAKEN_IDS & set(cells):
        raise FigureError(f"{path.name}: diagrams.net cannot open cells with the id {', '.join(sorted(taken))}")
    boxes = {name: _box(cell, cells) for name, cell in cells.items() if cell.get("vertex")}
    lines = [_line(cell, boxes) for cell in cells.values() if cell.get("edge")]
    title = root.find("diagram")
    assert title is not None
    width, height = (float(model.get(name, "")) for name in ("pageWidth", "pageHeight"))
    return Figure(title.get("name", ""), width, height, list(boxes.values()), lines)


def _box(cell: ET.Element, cells: dict[str, ET.Element]) -> Box:
    style = _style(cell, _BOX_STYLES | _TEXT_STYLES)
    area = _area(cell)
    parent = cell.get("parent", "")
    above = cells.get(parent)
    while above is not None and above.get("vertex"):
        x, y, *_ = _area(above)
        area = area._replace(x=area.x + x, y=area.y + y)
        above = cells.get(above.get("parent", ""))
    inside = parent in cells and cells[parent].get("vertex")
    return Box(cell.get("id", ""), parent if inside else None, area, _text(cell), style)


def _area(cell: ET.Element) -> Area:
    geometry = cell.find("mxGeometry")
    if geometry is None:
        raise FigureError(f"{cell.get('id')} has no geometry")
    return Area(*(float(geometry.get(name, "0")) for name in ("x", "y", "width", "height")))


def _line(cell: ET.Element, boxes: dict[str, Box]) -> Line:
    name = cell.get("id", "")
    style = _style(cell, _LINE_STYLES | _END_STYLES | _TEXT_STYLES)
    source, target = cell.get("source", ""), cell.get("target", "")
    for end in (source, target):
        if end not in boxes:
            raise FigureError(f"{name} leads from or to {end or 'nothing'}, which is no box")
    if missing := _END_STYLES - set(style):
        raise FigureError(f"{name}: give its ends fixed points ({', '.join(sorted(missing))})")
    start = boxes[source].area.at(float(style["exitX"]), float(style["exitY"]))
    stop = boxes[target].area.at(float(style["entryX"]), float(style["entryY"]))
    between = [_point(point) for point in cell.findall("mxGeometry/Array/mxPoint")]
    points = [start, *between, stop]
    return Line(name, source, target, points, _label_at(cell, points), _text(cell), style)


def _point(element: ET.Element) -> Point:
    return Point(float(element.get("x", "0")), float(element.get("y", "0")))


def _label_at(cell: ET.Element, points: list[Point]) -> Point:
    """Return where the middle of a line's label is: at a share of the way (x, -1 to 1), moved by an offset."""
    geometry = cell.find("mxGeometry")
    assert geometry is not None
    pieces = list(pairwise(points))
    way = (float(geometry.get("x", "0")) / 2 + 0.5) * sum(dist(*piece) for piece in pieces)
    while way > dist(*pieces[0]) and len(pieces) > 1:
        way -= dist(*pieces.pop(0))
    a, b = pieces[0]
    share = way / dist(a, b)
    offset = geometry.find("mxPoint[@as='offset']")
    moved = Point(0, 0) if offset is None else _point(offset)
    return Point(a.x + share * (b.x - a.x) + moved.x, a.y + share * (b.y - a.y) + moved.y)


def _style(cell: ET.Element, known: set[str]) -> dict[str, str]:
    pairs = (part.partition("=") for part in cell.get("style", "").split(";") if part)
    style = {key: value for key, _, value in pairs if key not in _WITHOUT_EFFECT}
    if unknown := set(style) - known:
        raise FigureError(f"{cell.get('id')}: tests/figures cannot draw {', '.join(sorted(unknown))}")
    if "fontSize" not in style:
        raise FigureError(f"{cell.get('id')} has no fontSize")
    return style


def _text(cell: ET.Element) -> list[TextLine]:
    lines = []
    for part in filter(None, cell.get("value", "").split("<br>")):
        bold = re.fullmatch("<b>(.*)</b>", part)
        text = bold[1] if bold else part
        if "<" in text:
            raise FigureError(f"{cell.get('id')}: only <br> between lines, and <b> around a whole line: {part}")
        lines.append(TextLine(html.unescape(text), bold is not None))
    return lines
