"""Draws a figure as SVG: the same bytes for the same figure."""

from html import escape

from tests.figures.layout import text_area
from tests.figures.source import LINE_HEIGHT, Box, Figure, Line

_BASELINE = 0.95  # from the top of a line of text, as a share of the font size
_BOLD = ' font-weight="bold"'
_FONT = "Helvetica, Arial, sans-serif"


def svg(figure: Figure) -> str:
    """Return the picture; white behind it, so that it can be read on dark pages too."""
    size = f'width="{figure.width:g}" height="{figure.height:g}"'
    view = f'viewBox="0 0 {figure.width:g} {figure.height:g}"'
    colors = sorted({_stroke(line) for line in figure.lines})
    items: list[Box | Line] = [*figure.boxes, *figure.lines]
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} {view} role="img" font-family="{_FONT}">',
        f"<title>{escape(figure.title)}</title>",
        "<!-- written by python -m tests.figures from the .drawio beside it -->",
        "<defs>",
        *(_arrow_head(color) for color in colors),
        "</defs>",
        f'<rect {size} fill="#ffffff"/>',
        *(_shape(box) for box in figure.boxes if not box.is_mark),
        *(_path(line) for line in figure.lines),
        *(_shape(box) for box in figure.boxes if box.is_mark),
        *(_label_ground(line) for line in figure.lines if line.lines),
        *(text for item in items for text in _texts(item)),
        "</svg>",
    ]
    return "\n".join(filter(None, parts)) + "\n"


def _stroke(item: Box | Line) -> str:
    return item.style.get("strokeColor", "#000000")


def _arrow_head(color: str) -> str:
    return (
        f'<marker id="arrow{color[1:]}" viewBox="0 0 10 10" refX="10" refY="5" markerWidth="8" markerHeight="8" '
        f'orient="auto-start-reverse"><path d="M0 0L10 5L0 10z" fill="{color}"/></marker>'
    )


def _shape(box: Box) -> str:
    fill, stroke = box.style.get("fillColor", "#ffffff"), _stroke(box)
    if (fill, stroke) == ("none", "none"):
        return ""
    paint = f'fill="{fill}" stroke="{stroke}"{_dashes(box)}'
    x, y, width, height = box.area
    if box.is_mark:
        middle = box.area.at(0.5, 0.5)
        return f'<ellipse cx="{middle.x:g}" cy="{middle.y:g}" rx="{width / 2:g}" ry="{height / 2:g}" {paint}/>'
    corner = f' rx="{_radius(box):g}"' if box.style.get("rounded") == "1" else ""
    return f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}"{corner} {paint}/>'


def _radius(box: Box) -> float:
    size = float(box.style.get("arcSize", "15"))
    if box.style.get("absoluteArcSize") == "1":
        return size / 2
    return size / 100 * min(box.area.width, box.area.height)


def _dashes(item: Box | Line) -> str:
    return ' stroke-dasharray="5 4"' if item.style.get("dashed") == "1" else ""


def _path(line: Line) -> str:
    way = "L".join(f"{point.x:g} {point.y:g}" for point in line.points)
    color = _stroke(line)
    heads = "".join(
        f' marker-{end}="url(#arrow{color[1:]})"'
        for end in ("start", "end")
        if line.style.get(f"{end}Arrow", "none") != "none"
    )
    return f'<path d="M{way}" fill="none" stroke="{color}" stroke-width="1.3"{_dashes(line)}{heads}/>'


def _label_ground(line: Line) -> str:
    color = line.style.get("labelBackgroundColor", "none")
    if color == "none":
        return ""
    x, y, width, height = text_area(line)
    return f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" fill="{color}"/>'


def _texts(item: Box | Line) -> list[str]:
    font_size = float(item.style["fontSize"])
    area = text_area(item)
    left = item.style.get("align") == "left"
    x = area.x if left else area.x + area.width / 2
    anchor = "" if left else ' text-anchor="middle"'
    color = item.style.get("fontColor", "#000000")
    return [
        f'<text x="{x:.1f}" y="{area.y + font_size * (number * LINE_HEIGHT + _BASELINE):.1f}" '
        f'font-size="{font_size:g}" fill="{color}"{anchor}{_BOLD if line.bold else ""}>{escape(line.text)}</text>'
        for number, line in enumerate(item.lines)
    ]
