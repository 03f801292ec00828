"""Columns, rows and filters of splits, and the bodies of the answers about them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import orjson
import pyarrow as pa

from serving_api.columns import COLUMNS, Kind
from serving_api.texts.parameters import to_text
from serving_api.texts.repository import Condition

LENGTH = 100  # the most rows of a page


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
    type_, sql = arrow.type, _quoted(arrow.name)
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
        sql = f"({sql} at time zone 'UTC')" if type_.tz else sql  # UTC without a zone, as in the replica
    else:
        return None
    return SplitColumn(arrow.name, kind, dtype, sql)


def features(columns: Sequence[SplitColumn]) -> list[dict[str, Any]]:
    """Return the columns as the dataset viewer lists them."""
    return [
        {"feature_idx": index, "name": column.name, "type": _type(column)} for index, column in enumerate(columns)
    ]


def feature_types(columns: Sequence[SplitColumn]) -> dict[str, dict[str, str]]:
    """Return the columns in the form that `datasets.Features.from_dict` reads."""
    return {column.name: _type(column) for column in columns}


def _type(column: SplitColumn) -> dict[str, str]:
    return {"dtype": column.dtype, "_type": "Value"}


CAPABILITIES: dict[str, Any] = dict.fromkeys(("preview", "viewer", "search", "filter", "statistics"), True)

# The members of `/size` that add up: rows, bytes in memory, and bytes of Parquet files.
_SUMMED = ("num_rows", "num_bytes_memory", "num_bytes_parquet_files")
_NONE_UNFINISHED: dict[str, Any] = {"pending": [], "failed": []}


class Config(NamedTuple):
    """A config of a dataset, its columns, and an item of `/size` for each split."""

    dataset: str
    name: str
    columns: Sequence[SplitColumn]
    splits: Sequence[dict[str, Any]]


def make_config(
    dataset: str, name: str, columns: Sequence[SplitColumn], splits: Mapping[str, tuple[int, int, int]]
) -> Config:
    """Return a config; `splits` are the rows, bytes in memory and bytes of the Parquet file of each split."""
    sizes = [
        {
            "dataset": dataset,
            "config": name,
            "split": split,
            **dict(zip(_SUMMED, counts, strict=True)),
            "estimated_num_rows": None,
            "num_columns": len(columns),
        }
        for split, counts in splits.items()
    ]
    return Config(dataset, name, columns, sizes)


def _total(splits: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    sums = {name: sum(split[name] for split in splits) for name in _SUMMED}
    return sums | {"estimated_num_rows": None}


def splits(dataset: str, listed: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """Return the body of `/splits` for the splits of each config."""
    found = [
        {"dataset": dataset, "config": config, "split": split}
        for config, names in listed.items()
        for split in names
    ]
    return {"splits": found, **_NONE_UNFINISHED}


def parquet(configs: Sequence[Config], base: str, columns: Sequence[SplitColumn] | None) -> dict[str, Any]:
    """Return the body of `/parquet` for snapshots; their files are below the address `base`.

    `columns` are those of the requested config; None for all configs.
    """
    files = [
        {
            **{name: split[name] for name in ("dataset", "config", "split")},
            "url": f"{base}/snapshots/{config.name}/{split['split']}.parquet",
            "filename": f"{split['split']}.parquet",
            "size": split["num_bytes_parquet_files"],
        }
        for config in configs
        for split in config.splits
    ]
    rest = {} if columns is None else {"features": feature_types(columns)}
    return {"parquet_files": files, **_NONE_UNFINISHED, "partial": False, **rest}


def size(dataset: str, configs: Sequence[Config], *, of_one: bool) -> dict[str, Any]:
    """Return the body of `/size`."""
    sizes = [
        {"dataset": dataset, "config": one.name, **_total(one.splits), "num_columns": len(one.columns)}
        for one in configs
    ]
    every = [split for one in configs for split in one.splits]
    if of_one:
        return {"size": {"config": sizes[0], "splits": every}, "partial": False}
    found = {"dataset": {"dataset": dataset, **_total(every)}, "configs": sizes, "splits": every}
    return {"size": found, **_NONE_UNFINISHED, "partial": False}


def info(description: str, configs: Sequence[Config], *, of_one: bool) -> dict[str, Any]:
    """Return the body of `/info`."""
    infos = {one.name: _info(description, one) for one in configs}
    if of_one:
        return {"dataset_info": infos[configs[0].name], "partial": False}
    return {"dataset_info": infos, **_NONE_UNFINISHED, "partial": False}


def _info(description: str, config: Config) -> dict[str, Any]:
    total = _total(config.splits)
    return {
        "description": description,
        "citation": "",
        "homepage": "",
        "license": "",
        "features": feature_types(config.columns),
        "builder_name": "parquet",
        "dataset_name": config.dataset,
        "config_name": config.name,
        "version": {"version_str": "0.0.0", "major": 0, "minor": 0, "patch": 0},
        "splits": {
            one["split"]: {
                "name": one["split"],
                "num_bytes": one["num_bytes_memory"],
                "num_examples": one["num_rows"],
                "dataset_name": config.dataset,
            }
            for one in config.splits
        },
        "download_size": total["num_bytes_parquet_files"],
        "dataset_size": total["num_bytes_memory"],
    }


# Limits of `/first-rows`, as in the original: bytes of the body, rows that are never omitted, bytes of a cut cell.
_FIRST_BYTES = 1_000_000
_FIRST_ROWS_KEPT = 10
_CELL_BYTES = 100


def page(columns: Sequence[SplitColumn], found: Slice) -> bytes:
    """Return the body of `/rows`, `/search` and `/filter`."""
    body = {
        "features": features(columns),
        "rows": [_item(columns, row) for row in found.rows],
        "num_rows_total": found.total,
        "num_rows_per_page": LENGTH,
        "partial": not found.whole,
    }
    return orjson.dumps(body)


def first_rows(split: dict[str, str], columns: Sequence[SplitColumn], found: Slice) -> bytes:
    """Return the body of `/first-rows` within its limits; `truncated` is true if anything is omitted or cut."""
    kept, left = _fitting([_item(columns, row) for row in found.rows])
    _cut(kept, left, columns)
    shortened = any(item["truncated_cells"] for item in kept)
    truncated = shortened or len(kept) < found.total
    return orjson.dumps({**split, "features": features(columns), "rows": kept, "truncated": truncated})


def _fitting(items: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], int]:
    """Return the items that fit, but at least the first few, and the remaining bytes, which may be negative."""
    left = _FIRST_BYTES
    kept: list[dict[str, Any]] = []
    for item in items:
        size = len(orjson.dumps(item))
        if size > left and len(kept) >= _FIRST_ROWS_KEPT:
            break
        kept.append(item)
        left -= size
    return kept, left


def _cut(items: list[dict[str, Any]], left: int, columns: Sequence[SplitColumn]) -> None:
    """Shorten the long cells of the last items until the body fits."""
    texts = [column.name for column in columns if column.is_text]
    for item in reversed(items):
        if left >= 0:
            break
        before = len(orjson.dumps(item))
        for name in texts:
            value = item["row"][name]
            encoded = value.encode() if value else b""
            if len(encoded) > _CELL_BYTES:
                item["row"][name] = encoded[:_CELL_BYTES].decode(errors="ignore")
                item["truncated_cells"].append(name)
        left += before - len(orjson.dumps(item))


def _item(columns: Sequence[SplitColumn], row: NumberedRow) -> dict[str, Any]:
    cells = {column.name: _cell(column, value) for column, value in zip(columns, row.values, strict=True)}
    return {"row_idx": row.offset, "row": cells, "truncated_cells": []}


def _cell(column: SplitColumn, value: Any) -> Any:
    return to_text(value) if column.kind is Kind.MOMENT and value is not None else value
