"""The bodies of the dataset viewer and its refusals; shapes and names are the original's.

The models document: bodies are sent as the bytes that `split_rows.py` makes.
"""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from core.web.openapi import Responses, header, with_example
from core.web.problems import NotFound, Problem, Unavailable
from serving_api.columns import EXAMPLE_ITEM
from serving_api.texts.schemas import REPLICA_HEADERS, refuses, wrong_parameter
from serving_api.viewer import split_rows
from serving_api.viewer.split_rows import CAPABILITIES, LENGTH, LIVE, make_config

# The original's names of refusals. Client libraries read these and `error`.
_CODES = {
    401: "ExternalUnauthenticatedError",
    403: "ExternalAuthenticatedError",
    404: "ResponseNotFound",
    422: "InvalidParameter",
    503: "ResponseNotReady",
}


def translated(problem: Problem) -> Problem:
    """Add the members and headers of the original's refusals, and return the problem."""
    errors = problem.extra.get("errors", [])
    is_missing = any(error["code"] == "missing" for error in errors)
    words = [f"Parameter '{error['parameter']}': {error['detail']}" for error in errors if "parameter" in error]
    problem.extra["error"] = " ".join(words) or problem.detail
    code = "MissingRequiredParameter" if is_missing else _CODES.get(problem.status)
    if code:
        problem.headers["X-Error-Code"] = code
    return problem


def no_dataset(name: str, known: list[str]) -> NotFound:
    """Return the refusal of an unknown dataset."""
    return NotFound(f"There is no dataset {name!r}; there are: {', '.join(known)}.", code="dataset_not_found")


def no_config(name: str, dataset: str) -> NotFound:
    """Return the refusal of an unknown config."""
    detail = f"There is no config {name!r} of {dataset}: it is live, or the name of a snapshot."
    return NotFound(detail, code="config_not_found")


def no_split(name: str, config: str, known: list[str]) -> NotFound:
    """Return the refusal of an unknown split."""
    detail = f"There is no split {name!r} of {config}; there are: {', '.join(known)}."
    return NotFound(detail, code="split_not_found")


_BASE = "http://127.0.0.1:9000"
_CONFIGS = [make_config("toxicity", "toxicity-2026-11", LIVE, {"train": (800, 402112, 128000)})]
_JSON = {"votes": '{"toxic": 3, "non_toxic": 1}', "metadata": '{"thread": 4}', "enrichment": "{}"}
_ROWS: dict[str, Any] = {
    "features": split_rows.features(LIVE),
    "rows": [{"row_idx": 234, "row": EXAMPLE_ITEM | _JSON, "truncated_cells": []}],
}
_FIRST_ROWS = {"dataset": "toxicity", "config": "live", "split": "train", **_ROWS, "truncated": True}
_PAGE = _ROWS | {"num_rows_total": 4711, "num_rows_per_page": LENGTH, "partial": False}

Cell = str | bool | int | float | None


class Validity(BaseModel):
    """The capabilities of the viewer."""

    model_config = with_example(CAPABILITIES)

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
    """A job of the original that is not finished: this viewer has none."""

    dataset: str
    config: str
    split: str | None = None
    kind: str


class Splits(BaseModel):
    """Configs and their splits."""

    model_config = with_example(split_rows.splits("toxicity", {"live": ["train"], "toxicity-2026-11": ["train"]}))

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

    row_idx: int = Field(description="Offset in the split, from 0.")
    row: dict[str, Cell] = Field(description="Times are RFC 3339, JSON is text.")
    truncated_cells: list[str] = Field(description="Columns whose text is cut.")


class FirstRows(SplitItem):
    """The first rows of a split."""

    model_config = with_example(_FIRST_ROWS)

    features: list[Feature]
    rows: list[Row]
    truncated: bool = Field(description="Whether rows are omitted or cells are cut.")


class RowsPage(BaseModel):
    """Rows of a list."""

    model_config = with_example(_PAGE)

    features: list[Feature]
    rows: list[Row]
    num_rows_total: int = Field(description="Rows of the list.")
    num_rows_per_page: int
    partial: bool = Field(description="Whether more rows fit than the list can show.")


class ParquetFile(SplitItem):
    """A Parquet file."""

    url: str
    filename: str
    size: int = Field(description="Bytes.")


class ParquetFiles(BaseModel):
    """Parquet files."""

    model_config = with_example(split_rows.parquet(_CONFIGS, _BASE, None))

    parquet_files: list[ParquetFile]
    features: dict[str, FeatureType] | None = None
    pending: list[UnfinishedJob]
    failed: list[UnfinishedJob]
    partial: bool


_CROISSANT: dict[str, Any] = {
    "@context": {"@vocab": "https://schema.org/", "cr": "http://mlcommons.org/croissant/"},
    "@type": "sc:Dataset",
    "conformsTo": "http://mlcommons.org/croissant/1.1",
    "name": "toxicity-2026-11",
    "description": "800 texts of the dataset toxicity, labelled by people.",
    "distribution": [
        {
            "@type": "cr:FileObject",
            "@id": "train.parquet",
            "contentUrl": f"{_BASE}/snapshots/toxicity-2026-11/train.parquet",
        }
    ],
    "recordSet": [{"@type": "cr:RecordSet", "@id": "split-train", "name": "split-train"}],
}


class Croissant(BaseModel):
    """JSON-LD by http://mlcommons.org/croissant/1.1; further members are the specification's."""

    model_config = ConfigDict(extra="allow", json_schema_extra={"examples": [_CROISSANT]})

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
    """Numbers of rows and bytes; `pending` and `failed` only of a whole dataset."""

    model_config = with_example(split_rows.size("toxicity", _CONFIGS, of_one=False))

    size: SizesOfDataset | SizesOfConfig
    pending: list[UnfinishedJob] = []
    failed: list[UnfinishedJob] = []
    partial: bool


class SplitInfo(BaseModel):
    """A split in the form of `datasets.SplitInfo`."""

    name: str
    num_bytes: int
    num_examples: int
    dataset_name: str


class DatasetVersion(BaseModel):
    """A version as `datasets.Version` has it; always 0.0.0."""

    version_str: str
    major: int
    minor: int
    patch: int


class DatasetInfo(BaseModel):
    """Metadata in the form of `datasets.DatasetInfo`."""

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

    model_config = with_example(split_rows.info("Decide whether the text is **toxic**.", _CONFIGS, of_one=True))

    dataset_info: DatasetInfo | dict[str, DatasetInfo]
    pending: list[UnfinishedJob] = []
    failed: list[UnfinishedJob] = []
    partial: bool


_OF_LIVE = {
    name: described | {"description": f"{described['description']} Of live labels only."}
    for name, described in REPLICA_HEADERS.items()
    if name.startswith("X-")
}
_HEADERS = {
    "Cache-Control": REPLICA_HEADERS["Cache-Control"],
    "ETag": header("For If-None-Match.", '"9f86d081884c7d659a2feaa0c55ad015"'),
}


def _responses(headers: dict[str, Any], *problems: Problem) -> Responses:
    return {
        200: {"description": "Successful Response", "headers": headers},
        304: {"description": "The client holds this answer already.", "headers": headers},
        **refuses(
            *map(
                translated,
                (
                    no_config("x", "toxicity"),
                    wrong_parameter("x", "extra_forbidden", "x is not a parameter of this path."),
                    Unavailable("Too many queries are waiting.", code="too_busy", retry_after_seconds=1),
                    *problems,
                ),
            )
        ),
    }


_WHERE = "At character 1: there is no column 'lable'; there are: id, dataset, text, label, …"
_LENGTH = "length must be between 1 and 100 (got 500)."

CONFIG: Responses = _responses(_HEADERS)
SPLIT: Responses = _responses(_HEADERS | _OF_LIVE)
PAGE: Responses = _responses(_HEADERS | _OF_LIVE, wrong_parameter("length", "less_than_equal", _LENGTH))
FILTER: Responses = _responses(_HEADERS | _OF_LIVE, wrong_parameter("where", "invalid_where", _WHERE))
