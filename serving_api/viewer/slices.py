"""What the viewer asks of a split, and what it gets."""

from dataclasses import dataclass
from typing import Any

from serving_api.viewer.where import Node, Ordering


@dataclass(frozen=True, slots=True)
class Span:
    """Which rows of a list are wanted."""

    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class Filter:
    """Which rows are listed, in which order; what is left out keeps the split's own."""

    where: Node | None
    orderby: tuple[Ordering, ...]


@dataclass(frozen=True, slots=True)
class NumberedRow:
    """A row of a split."""

    place: int  # in the whole split, from 0
    values: tuple[Any, ...]  # of its columns, in their order


@dataclass(frozen=True, slots=True)
class Slice:
    """Some of the rows of a list."""

    rows: list[NumberedRow]
    total: int  # rows of the list
    whole: bool = True  # whether the list shows all that was asked for
