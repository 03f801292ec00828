"""The bodies of the dataset viewer's answers: rows, and descriptions of configs and splits."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from serving_api.columns import Kind
from serving_api.texts.parameters import to_text
from serving_api.viewer.parameters import LENGTH
from serving_api.viewer.split_rows import NumberedRow, Slice, SplitColumn


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


@dataclass(frozen=True, slots=True)
class SplitFacts:
    """The counts of a split."""

    name: str
    rows: int
    memory_bytes: int
    file_bytes: int  # of its Parquet file; 0 if there is none


@dataclass(frozen=True, slots=True)
class ConfigFacts:
    """The splits of a config, and their columns."""

    dataset: str
    name: str
    columns: Sequence[SplitColumn]
    splits: Sequence[SplitFacts]


def splits(dataset: str, listed: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """Return the body of `/splits` for the splits of each config."""
    found = [
        {"dataset": dataset, "config": config, "split": split}
        for config, names in listed.items()
        for split in names
    ]
    return {"splits": found, "pending": [], "failed": []}


def parquet(configs: Sequence[ConfigFacts], base: str, columns: Sequence[SplitColumn] | None) -> dict[str, Any]:
    """Return the body of `/parquet` for snapshots; their files are below the address `base`.

    `columns` are those of the requested config; None for all configs.
    """
    listed = [
        {
            "dataset": config.dataset,
            "config": config.name,
            "split": split.name,
            "url": f"{base}/snapshots/{config.name}/{split.name}.parquet",
            "filename": f"{split.name}.parquet",
            "size": split.file_bytes,
        }
        for config in configs
        for split in config.splits
    ]
    rest = {} if columns is None else {"features": feature_types(columns)}
    return {"parquet_files": listed, "pending": [], "failed": [], "partial": False, **rest}


def size(dataset: str, configs: Sequence[ConfigFacts], *, of_one: bool) -> dict[str, Any]:
    """Return the body of `/size`."""
    sizes = [
        {"dataset": dataset, "config": one.name, **_sums(one.splits), "num_columns": len(one.columns)}
        for one in configs
    ]
    of_splits = [
        {"dataset": dataset, "config": one.name, "split": split.name, **_sums([split]), "num_columns": columns}
        for one in configs
        for columns in [len(one.columns)]
        for split in one.splits
    ]
    if of_one:
        return {"size": {"config": sizes[0], "splits": of_splits}, "partial": False}
    every = {"dataset": dataset, **_sums([split for one in configs for split in one.splits])}
    found = {"dataset": every, "configs": sizes, "splits": of_splits}
    return {"size": found, "pending": [], "failed": [], "partial": False}


def info(description: str, configs: Sequence[ConfigFacts], *, of_one: bool) -> dict[str, Any]:
    """Return the body of `/info`."""
    infos = {one.name: _info(description, one) for one in configs}
    if of_one:
        return {"dataset_info": infos[configs[0].name], "partial": False}
    return {"dataset_info": infos, "pending": [], "failed": [], "partial": False}


def _info(description: str, config: ConfigFacts) -> dict[str, Any]:
    memory, files = _total(config.splits)
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
            one.name: {
                "name": one.name,
                "num_bytes": one.memory_bytes,
                "num_examples": one.rows,
                "dataset_name": config.dataset,
            }
            for one in config.splits
        },
        "download_size": files,
        "dataset_size": memory,
    }


def _sums(found: Sequence[SplitFacts]) -> dict[str, Any]:
    memory, files = _total(found)
    return {
        "num_bytes_parquet_files": files,
        "num_bytes_memory": memory,
        "num_rows": sum(one.rows for one in found),
        "estimated_num_rows": None,
    }


def _total(found: Sequence[SplitFacts]) -> tuple[int, int]:
    return sum(one.memory_bytes for one in found), sum(one.file_bytes for one in found)


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
