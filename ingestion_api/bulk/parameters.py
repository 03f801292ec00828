"""How a bulk body is to be read: its media type and the parameters of the request."""

from functools import partial
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from core.datasets import Datasets, require_dataset
from core.web.keys import require_dataset_allowed
from core.web.openapi import DATASET_NAME
from ingestion_api.bulk.batches import BulkUpload
from ingestion_api.bulk.columns import Columns
from ingestion_api.bulk.mapping import LABEL_MAP, Mapping, map_columns, map_object, parse_label_map
from ingestion_api.bulk.parquet_reader import read_parquet
from ingestion_api.bulk.readers import Reader, read_csv, read_json_array, read_ndjson
from ingestion_api.enrichment.links import linked_datasets
from ingestion_api.texts.schemas import Line

_PARQUET = "application/vnd.apache.parquet"
READERS: dict[str, Reader] = {
    "application/x-ndjson": read_ndjson,
    "application/json": read_json_array,
    "text/csv": read_csv,
    _PARQUET: read_parquet,
}

# Twins are looked for under a lock that the dataset's single texts wait for: a third of a second for so many rows.
_LINKED_CHUNK_ROWS = 500


class BulkParameters(BaseModel):
    """How the body is to be read."""

    model_config = ConfigDict(extra="forbid")

    on_error: Literal["skip", "abort"] = Field(
        "skip", description="`skip` stores the good rows; `abort` stores all or nothing.", examples=["skip"]
    )
    dataset: str | None = Field(
        None,
        description="The dataset of rows that name none.",
        examples=["toxicity"],
        json_schema_extra=DATASET_NAME,
    )
    source: Line | None = Field(
        None,
        description="The rows' source; in CSV and Parquet a column, if there is one of that name.",
        examples=["forum"],
    )
    text: str = Field("text", description="CSV, Parquet: the column of the text.", examples=["text"])
    label: str | None = Field(
        None,
        description="CSV, Parquet: the column of the claimed label; else `label`, if any.",
        examples=["label"],
    )
    label_map: str | None = Field(
        None,
        description="THEIRS:OURS,… where labels have other names.",
        examples=["Toxic:toxic,Not Toxic:non_toxic"],
        json_schema_extra={"pattern": LABEL_MAP},
    )
    metadata: Literal["none", "all"] = Field(
        "none", description="CSV, Parquet: whether other columns become metadata.", examples=["all"]
    )


def make_upload(
    media_type: str,
    parameters: BulkParameters,
    datasets: Datasets,
    chunk_rows: int,
    allowed: frozenset[str] | None = None,
) -> BulkUpload:
    """Return how a body of this media type is read; processes are handed the arguments, which can be pickled.

    Rows that name another dataset than the `allowed` ones are rejected; None allows all.

    Raises:
        InvalidFields: a parameter is wrong.
    """
    mapping = _mapping(media_type, parameters, datasets)
    reader = READERS[media_type]
    if media_type == _PARQUET:
        reader = partial(read_parquet, columns=_columns(parameters))
    if linked_datasets(datasets):
        chunk_rows = min(chunk_rows, _LINKED_CHUNK_ROWS)
    return BulkUpload(reader, mapping, datasets, parameters.on_error == "abort", chunk_rows, allowed)


def _mapping(media_type: str, parameters: BulkParameters, datasets: Datasets) -> Mapping:
    if parameters.dataset is not None:
        require_dataset(parameters.dataset, datasets)
        require_dataset_allowed(parameters.dataset)
    given = {"dataset": parameters.dataset, "source": parameters.source}
    defaults = {name: value for name, value in given.items() if value is not None}
    label_map = parse_label_map(parameters.label_map)
    if media_type in {"application/x-ndjson", "application/json"}:
        return map_object(defaults, label_map)
    return map_columns(_columns(parameters), defaults, label_map)


def _columns(parameters: BulkParameters) -> Columns:
    return Columns(parameters.text, parameters.label, parameters.source, parameters.metadata == "all")
