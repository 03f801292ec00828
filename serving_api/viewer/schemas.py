"""What the dataset viewer sends, and what OpenAPI says of it; shapes and names are the original's."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from core.web.openapi import Responses, answer, header, key_refusals, problem, unavailable
from serving_api.columns import EXAMPLE_ITEM
from serving_api.texts.schemas import REPLICA_HEADERS
from serving_api.viewer.descriptions import feature_types, features
from serving_api.viewer.refusals import NO_CONFIG, TOO_BUSY, documented, documented_wrong
from serving_api.viewer.split_rows import LIVE
from serving_api.viewer.statistics import STATISTICS_EXAMPLE, Statistics

Cell = str | bool | int | float | None


class Validity(BaseModel):
    """What can be done with it."""

    preview: bool
    viewer: bool
    search: bool
    filter: bool
    statistics: bool


class SplitItem(BaseModel):
    """One split."""

    dataset: str
    config: str = Field(description="`live`, or a snapshot's name.")
    split: str


class UnfinishedJob(BaseModel):
    """Something that is not ready: here nothing ever is."""

    dataset: str
    config: str
    split: str | None = None
    kind: str


class Splits(BaseModel):
    """Configs and their splits."""

    splits: list[SplitItem]
    pending: list[UnfinishedJob]
    failed: list[UnfinishedJob]


class FeatureType(BaseModel):
    """A type of the datasets library."""

    dtype: str
    type_: Literal["Value"] = Field(alias="_type")


class Feature(BaseModel):
    """A column."""

    feature_idx: int
    name: str
    type: FeatureType


class Row(BaseModel):
    """A row."""

    row_idx: int = Field(description="Place in the split, from 0.")
    row: dict[str, Cell] = Field(description="Times are RFC 3339, JSON is text.")
    truncated_cells: list[str] = Field(description="Columns whose text is cut.")


class FirstRows(SplitItem):
    """The first rows of a split."""

    features: list[Feature]
    rows: list[Row]
    truncated: bool = Field(description="Whether the split has more rows, or cells are cut.")


class RowsPage(BaseModel):
    """Rows of a list."""

    features: list[Feature]
    rows: list[Row]
    num_rows_total: int = Field(description="Rows of the list.")
    num_rows_per_page: int
    partial: bool = Field(description="Whether there are more than the list can show.")


class ParquetFile(SplitItem):
    """A Parquet file."""

    url: str
    filename: str
    size: int = Field(description="Bytes.")


class ParquetFiles(BaseModel):
    """Parquet files."""

    parquet_files: list[ParquetFile]
    features: dict[str, FeatureType] | None = None
    pending: list[UnfinishedJob]
    failed: list[UnfinishedJob]
    partial: bool


class Croissant(BaseModel):
    """JSON-LD by http://mlcommons.org/croissant/1.1; further members are the specification's."""

    model_config = ConfigDict(extra="allow")

    context: dict[str, object] = Field(alias="@context")
    type_: str = Field(alias="@type")
    conformsTo: str  # noqa: N815 - the specification's name
    name: str
    description: str
    distribution: list[dict[str, object]]
    recordSet: list[dict[str, object]]  # noqa: N815


class _Size(BaseModel):
    num_bytes_parquet_files: int
    num_bytes_memory: int
    num_rows: int
    estimated_num_rows: int | None


class DatasetSize(_Size):
    """Size of a dataset."""

    dataset: str


class ConfigSize(DatasetSize):
    """Size of a config."""

    config: str
    num_columns: int


class SplitSize(ConfigSize):
    """Size of a split."""

    split: str


class SizesOfDataset(BaseModel):
    """Sizes of a dataset, its configs and their splits."""

    dataset: DatasetSize
    configs: list[ConfigSize]
    splits: list[SplitSize]


class SizesOfConfig(BaseModel):
    """Sizes of a config and its splits."""

    config: ConfigSize
    splits: list[SplitSize]


class Size(BaseModel):
    """How many rows and bytes there are; `pending` and `failed` only of a whole dataset."""

    size: SizesOfDataset | SizesOfConfig
    pending: list[UnfinishedJob] = []
    failed: list[UnfinishedJob] = []
    partial: bool


class SplitInfo(BaseModel):
    """A split as `datasets.SplitInfo` has it."""

    name: str
    num_bytes: int
    num_examples: int
    dataset_name: str


class DatasetVersion(BaseModel):
    """A version as `datasets.Version` has it; it says nothing here."""

    version_str: str
    major: int
    minor: int
    patch: int


class DatasetInfo(BaseModel):
    """Metadata as `datasets.DatasetInfo` holds them."""

    description: str
    citation: str
    homepage: str
    license: str
    features: dict[str, FeatureType]
    builder_name: str
    dataset_name: str
    config_name: str
    version: DatasetVersion
    splits: dict[str, SplitInfo]
    download_size: int
    dataset_size: int


class Info(BaseModel):
    """Metadata of a config, or of all of them by name."""

    dataset_info: DatasetInfo | dict[str, DatasetInfo]
    pending: list[UnfinishedJob] = []
    failed: list[UnfinishedJob] = []
    partial: bool


_SPLIT = {"dataset": "toxicity", "config": "toxicity-2026-11", "split": "train"}
_LIVE = {"dataset": "toxicity", "config": "live", "split": "train"}
_ROW = EXAMPLE_ITEM | {
    "votes": '{"toxic": 3, "non_toxic": 1}',
    "metadata": '{"thread": 4}',
    "enrichment": "{}",
}
_ROWS = [{"row_idx": 234, "row": _ROW, "truncated_cells": []}]
_NOTHING: dict[str, Any] = {"pending": [], "failed": []}
_PAGE = {
    "features": features(LIVE),
    "rows": _ROWS,
    "num_rows_total": 4711,
    "num_rows_per_page": 100,
    "partial": False,
}
_BYTES = {
    "num_bytes_parquet_files": 128000,
    "num_bytes_memory": 402112,
    "num_rows": 800,
    "estimated_num_rows": None,
}
_NAME = {"dataset": "toxicity", "config": "toxicity-2026-11"}
_CONFIG_SIZE = _NAME | _BYTES | {"num_columns": len(LIVE)}
_SIZE = {
    "size": {
        "dataset": {"dataset": "toxicity"} | _BYTES,
        "configs": [_CONFIG_SIZE],
        "splits": [_CONFIG_SIZE | {"split": "train"}],
    },
    **_NOTHING,
    "partial": False,
}
_INFO = {
    "description": "Decide whether the text is **toxic**.",
    "citation": "",
    "homepage": "",
    "license": "",
    "features": feature_types(LIVE),
    "builder_name": "parquet",
    "dataset_name": "toxicity",
    "config_name": "toxicity-2026-11",
    "version": {"version_str": "0.0.0", "major": 0, "minor": 0, "patch": 0},
    "splits": {
        "train": {"name": "train", "num_bytes": 402112, "num_examples": 800, "dataset_name": "toxicity"},
    },
    "download_size": 128000,
    "dataset_size": 402112,
}
_URL = "http://127.0.0.1:9000/snapshots/toxicity-2026-11/train.parquet"
_PARQUET = {
    "parquet_files": [_SPLIT | {"url": _URL, "filename": "train.parquet", "size": 128000}],
    **_NOTHING,
    "partial": False,
}

_CROISSANT = {
    "@context": {"@vocab": "https://schema.org/", "cr": "http://mlcommons.org/croissant/"},
    "@type": "sc:Dataset",
    "conformsTo": "http://mlcommons.org/croissant/1.1",
    "name": "toxicity-2026-11",
    "description": "800 texts of the dataset toxicity, labelled by people.",
    "distribution": [{"@type": "cr:FileObject", "@id": "train.parquet", "contentUrl": _URL}],
    "recordSet": [{"@type": "cr:RecordSet", "@id": "split-train", "name": "split-train"}],
}

_ETAG = {"ETag": header("For If-None-Match.", '"9f86d081884c7d659a2feaa0c55ad015"')}
_OF_LIVE = {
    name: described | {"description": f"{described['description']} Of live labels only."}
    for name, described in REPLICA_HEADERS.items()
    if name.startswith("X-")
}
_HEADERS = {"Cache-Control": REPLICA_HEADERS["Cache-Control"]} | _OF_LIVE | _ETAG


_LENGTH = documented_wrong("length", "less_than_equal", "length must be between 1 and 100 (got 500).")
_UNKNOWN = documented_wrong("x", "extra_forbidden", "Extra inputs are not permitted")
_WHERE = documented_wrong(
    "where", "invalid_where", "At character 1: there is no column 'lable'; there are: id, dataset, text, label, …"
)


def _responses(
    model: type, example: Any, wrong: dict[str, Any] = _UNKNOWN, headers: dict[str, Any] | None = None
) -> Responses:
    return {
        200: answer("Successful Response", example, model=model, headers=headers or _HEADERS),
        304: {"description": "The client holds this answer already.", "headers": headers or _HEADERS},
        400: problem(400, "malformed_query", "The query string is not UTF-8."),
        **key_refusals("read"),
        404: documented(problem(404, "config_not_found", NO_CONFIG), NO_CONFIG, "ResponseNotFound"),
        422: wrong,
        503: documented(unavailable("too_busy", TOO_BUSY), TOO_BUSY, "ResponseNotReady"),
    }


_WITHOUT_REPLICA = {name: described for name, described in _HEADERS.items() if not name.startswith("X-")}
_EVERYTHING = dict.fromkeys(("preview", "viewer", "search", "filter", "statistics"), True)
_FIRST = _LIVE | {"features": features(LIVE), "rows": _ROWS, "truncated": True}

RESPONSES: dict[str, Responses] = {
    "/is-valid": _responses(Validity, _EVERYTHING, headers=_WITHOUT_REPLICA),
    "/splits": _responses(Splits, {"splits": [_LIVE, _SPLIT], **_NOTHING}, headers=_WITHOUT_REPLICA),
    "/first-rows": _responses(FirstRows, _FIRST),
    "/rows": _responses(RowsPage, _PAGE, _LENGTH),
    "/search": _responses(RowsPage, _PAGE, _LENGTH),
    "/filter": _responses(RowsPage, _PAGE, _WHERE),
    "/parquet": _responses(ParquetFiles, _PARQUET, headers=_WITHOUT_REPLICA),
    "/croissant": _responses(Croissant, _CROISSANT, headers=_WITHOUT_REPLICA),
    "/size": _responses(Size, _SIZE, headers=_WITHOUT_REPLICA),
    "/info": _responses(Info, {"dataset_info": _INFO, "partial": False}, headers=_WITHOUT_REPLICA),
    "/statistics": _responses(Statistics, STATISTICS_EXAMPLE),
}
