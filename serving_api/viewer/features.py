"""The columns of a split, and what the datasets library calls their types."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from serving_api.columns import COLUMNS, Kind


@dataclass(frozen=True, slots=True)
class SplitColumn:
    """A column of a split."""

    name: str
    kind: Kind
    dtype: str  # as the datasets library writes it

    @property
    def is_text(self) -> bool:
        """Whether its values are strings; JSON is text, too."""
        return self.kind in {Kind.TEXT, Kind.JSON}

    @property
    def quoted(self) -> str:
        """Its name in SQL."""
        return '"' + self.name.replace('"', '""') + '"'


# The same as in exports.
LIVE = tuple(SplitColumn(name, column.kind, column.arrow_type) for name, column in COLUMNS.items())


def columns_of(schema: pa.Schema) -> tuple[SplitColumn, ...]:
    """Return the columns of a Parquet file; those of a type that no export has are left out."""
    found = (_of_field(field) for field in schema)
    return tuple(column for column in found if column is not None)


def features(columns: Sequence[SplitColumn]) -> list[dict[str, Any]]:
    """Return the columns as the dataset viewer lists them."""
    return [
        {"feature_idx": index, "name": column.name, "type": _type(column)} for index, column in enumerate(columns)
    ]


def feature_types(columns: Sequence[SplitColumn]) -> dict[str, dict[str, str]]:
    """Return the columns as `datasets.Features.from_dict` reads them."""
    return {column.name: _type(column) for column in columns}


def _type(column: SplitColumn) -> dict[str, str]:
    return {"dtype": column.dtype, "_type": "Value"}


def _of_field(field: pa.Field) -> SplitColumn | None:
    kind = field.type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        known = COLUMNS.get(field.name)
        return SplitColumn(field.name, known.kind if known else Kind.TEXT, str(kind))
    if pa.types.is_boolean(kind):
        return SplitColumn(field.name, Kind.FLAG, "bool")
    if pa.types.is_integer(kind):
        return SplitColumn(field.name, Kind.NUMBER, str(kind))
    if pa.types.is_floating(kind):
        # Arrow says double, the datasets library float64.
        return SplitColumn(field.name, Kind.NUMBER, f"float{kind.bit_width}")
    if pa.types.is_timestamp(kind):
        return SplitColumn(field.name, Kind.MOMENT, str(kind))
    return None
