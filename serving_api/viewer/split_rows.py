"""Rows, columns and filters of a split."""

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import pyarrow as pa

from serving_api.columns import COLUMNS, Kind
from serving_api.texts.repository import Condition


@dataclass(frozen=True, slots=True)
class SplitColumn:
    """A column of a split."""

    name: str
    kind: Kind
    dtype: str  # as the datasets library writes it
    sql: str = field(compare=False)  # the expression that gives its values

    @property
    def is_text(self) -> bool:
        """Whether its values are strings. JSON is text."""
        return self.kind in {Kind.TEXT, Kind.JSON}


@dataclass(frozen=True, slots=True)
class Span:
    """A range of the rows of a list."""

    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class NumberedRow:
    """A row of a split."""

    offset: int  # in the whole split, from 0
    values: tuple[Any, ...]  # of its columns, in their order


@dataclass(frozen=True, slots=True)
class Slice:
    """Some of the rows of a list."""

    rows: list[NumberedRow]
    total: int  # rows of the list
    whole: bool = True  # whether the list contains every row that fits


class SortKey(NamedTuple):
    """An expression to sort rows by, and its direction: `desc nulls last`."""

    expression: Condition
    direction: str


@dataclass(frozen=True, slots=True)
class Filter:
    """The rows to list, and their order; by default all of them, in the split's own order."""

    where: Condition = ("true", [])
    orderby: tuple[SortKey, ...] = ()
    columns: tuple[str, ...] = ()  # the names of all columns that either reads


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


# The same as in exports. The replica stores an id as a UUID.
LIVE = tuple(
    SplitColumn(name, column.kind, column.arrow_type, "id::varchar" if name == "id" else _quoted(name))
    for name, column in COLUMNS.items()
)


def columns_of(schema: pa.Schema) -> tuple[SplitColumn, ...]:
    """Return the columns of a Parquet file; those of a type that no export has are omitted."""
    found = map(_of_field, schema)
    return tuple(column for column in found if column is not None)


def _of_field(arrow: pa.Field) -> SplitColumn | None:
    type_ = arrow.type
    if pa.types.is_string(type_) or pa.types.is_large_string(type_):
        known = COLUMNS.get(arrow.name)
        kind, dtype = known.kind if known else Kind.TEXT, str(type_)
    elif pa.types.is_boolean(type_):
        kind, dtype = Kind.FLAG, "bool"
    elif pa.types.is_integer(type_):
        kind, dtype = Kind.NUMBER, str(type_)
    elif pa.types.is_floating(type_):
        # Arrow says double, the datasets library float64.
        kind, dtype = Kind.NUMBER, f"float{type_.bit_width}"
    elif pa.types.is_timestamp(type_):
        kind, dtype = Kind.MOMENT, str(type_)
    else:
        return None
    return SplitColumn(arrow.name, kind, dtype, _quoted(arrow.name))
