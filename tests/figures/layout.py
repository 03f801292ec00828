"""Where text is, and what is wrong with a figure: text that does not fit, things that lie on each other."""

from itertools import combinations, pairwise

from tests.figures.source import LINE_HEIGHT, PADDING, Area, Box, Figure, Line, Point, TextLine

# Widths in DejaVu Sans, the widest of the fonts that browsers take for Helvetica, as shares of the font size.
_WIDTHS = dict.fromkeys("ijl.,:;'|!()[]I /-", 0.4) | dict.fromkeys("mwMWQ@%→↔", 1.0) | dict.fromkeys("frts", 0.53)
_CAPITAL, _OTHER, _BOLD = 0.75, 0.64, 1.13

# What touches within this distance is still apart.
_SLACK = 1.0


def text_width(line: TextLine, font_size: float) -> float:
    """Return an upper estimate of the line's width."""
    widths = (_WIDTHS.get(c, _CAPITAL if c.isupper() else _OTHER) for c in line.text)
    return sum(widths) * font_size * (_BOLD if line.bold else 1)


def text_area(item: Box | Line) -> Area:
    """Return the area that the text of a box, or the label of a line, takes."""
    font_size = float(item.style["fontSize"])
    width = max((text_width(line, font_size) for line in item.lines), default=0)
    height = len(item.lines) * font_size * LINE_HEIGHT
    if isinstance(item, Line):
        return Area(item.label_at.x - width / 2, item.label_at.y - height / 2, width, height)
    area = item.area
    left, top = (PADDING + float(item.style.get(f"spacing{side}", "0")) for side in ("Left", "Top"))
    x = area.x + (left if item.style.get("align") == "left" else (area.width - width) / 2)
    y = area.y + (top if item.style.get("verticalAlign") == "top" else (area.height - height) / 2)
    return Area(x, y, width, height)


def problems(figure: Figure) -> list[str]:
    """Return what is wrong with the layout, a sentence each."""
    return [*_outside(figure), *_overlapping(figure), *_crossed(figure)]


def _outside(figure: Figure) -> list[str]:
    areas = {box.id: box.area for box in figure.boxes}
    page = Area(0, 0, figure.width, figure.height)
    found = [
        f"{box.id} is not within {box.parent or 'the page'}"
        for box in figure.boxes
        if not _holds(areas[box.parent] if box.parent else page, box.area)
    ]
    found += [f"the text of {box.id} does not fit" for box in figure.boxes if not _holds(box.area, text_area(box))]
    return found + [
        f"the label of {line.id} leaves the page" for line in figure.lines if not _holds(page, text_area(line))
    ]


def _overlapping(figure: Figure) -> list[str]:
    parents = {box.id: figure.ancestors(box.id) for box in figure.boxes}
    things: list[tuple[str, Area, set[str]]] = [(box.id, box.area, parents[box.id]) for box in figure.boxes]
    # The text of a box must leave room for the boxes in it.
    holders = [box for box in figure.boxes if box.lines and any(box.id in above for above in parents.values())]
    things += [(f"the text of {box.id}", text_area(box), parents[box.id] | {box.id}) for box in holders]
    things += [(f"the label of {line.id}", text_area(line), set()) for line in figure.lines if line.lines]
    return [
        f"{a} and {b} overlap"
        for (a, area, above), (b, other, above_other) in combinations(things, 2)
        if a not in above_other and b not in above and _overlap(area, other)
    ]


def _crossed(figure: Figure) -> list[str]:
    """Lines through boxes that are not their ends, and through texts of others."""
    found = []
    for line in figure.lines:
        ends = {line.source, line.target}
        around = ends.union(*(figure.ancestors(end) for end in ends))
        boxes = [(box.id, box.area) for box in figure.boxes if box.id not in around and not box.is_mark]
        labels = [(f"the label of {o.id}", text_area(o)) for o in figure.lines if o is not line and o.lines]
        texts = [(f"the text of {b.id}", text_area(b)) for b in figure.boxes if b.id in around and b.lines]
        found += [
            f"{line.id} goes through {name}"
            for name, area in boxes + labels + texts
            if any(_cuts(a, b, area) for a, b in pairwise(line.points))
        ]
    return found


def _holds(outer: Area, inner: Area) -> bool:
    return (
        outer.x <= inner.x
        and outer.y <= inner.y
        and inner.x + inner.width <= outer.x + outer.width
        and inner.y + inner.height <= outer.y + outer.height
    )


def _overlap(a: Area, b: Area) -> bool:
    return (
        a.x + a.width > b.x + _SLACK
        and b.x + b.width > a.x + _SLACK
        and a.y + a.height > b.y + _SLACK
        and b.y + b.height > a.y + _SLACK
    )


def _cuts(a: Point, b: Point, area: Area) -> bool:
    """Return whether the piece from a to b has a part inside the area (Liang and Barsky's clipping)."""
    first, last = 0.0, 1.0
    across = (a.x, b.x - a.x, area.x + _SLACK, area.x + area.width - _SLACK)
    down = (a.y, b.y - a.y, area.y + _SLACK, area.y + area.height - _SLACK)
    for start, way, low, high in (across, down):
        if way == 0:
            if not low < start < high:
                return False
            continue
        enters, leaves = sorted(((low - start) / way, (high - start) / way))
        first, last = max(first, enters), min(last, leaves)
    return first < last
