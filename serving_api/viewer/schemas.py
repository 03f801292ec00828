"""What the dataset viewer sends; shapes and names are the original's."""

from typing import Literal

from pydantic import BaseModel, Field

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


class Job(BaseModel):
    """Something that is not ready: here nothing ever is."""

    dataset: str
    config: str
    split: str | None = None
    kind: str


class Splits(BaseModel):
    """Configs and their splits."""

    splits: list[SplitItem]
    pending: list[Job]
    failed: list[Job]


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
    pending: list[Job]
    failed: list[Job]
    partial: bool


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
    pending: list[Job] = []
    failed: list[Job] = []
    partial: bool


class SplitInfo(BaseModel):
    """A split as `datasets.SplitInfo` has it."""

    name: str
    num_bytes: int
    num_examples: int
    dataset_name: str


class Version(BaseModel):
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
    version: Version
    splits: dict[str, SplitInfo]
    download_size: int
    dataset_size: int


class Info(BaseModel):
    """Metadata of a config, or of all of them by name."""

    dataset_info: DatasetInfo | dict[str, DatasetInfo]
    pending: list[Job] = []
    failed: list[Job] = []
    partial: bool


class Histogram(BaseModel):
    """How many values lie between one edge and the next."""

    hist: list[int]
    bin_edges: list[float | str]


class _Counts(BaseModel):
    nan_count: int = Field(description="Nulls.")
    nan_proportion: float


class Distribution(_Counts):
    """Of numbers, of times, or of the lengths of texts."""

    min: float | str | None
    max: float | str | None
    mean: float | str | None
    median: float | str | None = Field(description="Of numbers and times an estimate.")
    std: float | str | None
    histogram: Histogram | None


class Frequencies(_Counts):
    """Of labels."""

    no_label_count: int
    no_label_proportion: float
    n_unique: int
    frequencies: dict[str, int]


class ColumnStatistics(BaseModel):
    """Of one column."""

    column_name: str
    column_type: Literal["string_label", "string_text", "int", "float", "datetime"]
    column_statistics: Distribution | Frequencies


class Statistics(BaseModel):
    """Of each column."""

    num_examples: int
    statistics: list[ColumnStatistics]
    partial: bool
