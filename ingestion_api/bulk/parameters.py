"""The parameters of bulk bodies, imports and previews, and the Content-Type of their bodies."""

import re
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic_core import from_json

from core.datasets import Datasets
from core.tables.csv_table import DELIMITERS
from core.tables.opening import CHARACTER_FORMATS, MEDIA_TYPES, open_table
from core.tables.rows import Table
from core.tables.text_lines import require_charset
from core.web.keys import require_dataset_allowed
from core.web.openapi import DATASET_NAME
from core.web.problems import FieldError, InvalidFields, UnsupportedType, require_dataset
from ingestion_api.bulk.batches import BulkUpload
from ingestion_api.bulk.label_map import LABEL_MAP, LabelMap, check_targets, parse_label_map, split_names
from ingestion_api.bulk.mapping import Rows, Wanted, map_table
from ingestion_api.enrichment.repository import linked_datasets
from ingestion_api.texts.schemas import Line
from ingestion_api.texts.submissions import read_quickly

# The search for near duplicates holds a lock that the dataset's single texts wait for: 0.3 s for these rows.
_LINKED_CHUNK_ROWS = 500

_CHARSET = re.compile(r";\s*charset\s*=\s*\"?([\w.:-]+)", re.IGNORECASE)
_COLUMNS = ("text", "label", "score", "external_id", "metadata")


class BulkParameters(BaseModel):
    """The parameters of a bulk body: how to read it."""

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
        description="The column of the source; where there is none of that name, the source of all rows.",
        examples=["forum"],
    )
    text: Line | None = Field(None, description="The column of the text; else `text`.", examples=["comment_text"])
    label: Line | None = Field(
        None, description="The column of the claimed label; else `label`, if there is one.", examples=["is_toxic"]
    )
    label_map: str | None = Field(
        None,
        description="THEIRS:OURS,… where labels have other names. A backslash makes the next character an "
        "ordinary one. A number may be compared: `>=0.5:toxic,<0.5:non_toxic`.",
        examples=["Toxic:toxic,Not Toxic:non_toxic"],
        json_schema_extra={"pattern": LABEL_MAP},
    )
    score: Line | None = Field(
        None, description="The column of the score, 0 to 1; else `score`, if there is one.", examples=["toxicity"]
    )
    external_id: Line | None = Field(
        None,
        description="The column of the sender's own id; else `external_id`, if there is one.",
        examples=["id"],
    )
    metadata: str | None = Field(
        None,
        min_length=1,
        max_length=20_000,
        description="The columns that become metadata: `all` others, `none`, or names with commas between them.",
        examples=["all"],
    )
    delimiter: Literal[",", ";", "|", "tab"] | None = Field(
        None, description="Of CSV; else it is found out from the header.", examples=[";"]
    )
    charset: str | None = Field(
        None,
        description="Of CSV; else the Content-Type's, else UTF-8, or UTF-16 where a byte order mark tells so.",
        examples=["windows-1252"],
    )

    def wanted(self) -> Wanted:
        """Return what the parameters say about columns.

        Raises:
            InvalidFields: the label map cannot be read.
        """
        return Wanted(
            self.text,
            self.label,
            self.score,
            self.external_id,
            self.source,
            self.dataset,
            self._metadata(),
            LabelMap(parse_label_map(self.label_map)),
            chooses=any(getattr(self, name) is not None for name in _COLUMNS),
        )

    def _metadata(self) -> list[str] | str | None:
        if self.metadata in {None, "none", "all"}:
            return "all" if self.metadata == "all" else None
        return split_names(self.metadata or "")


def read_content_type(header: str, parameters: BulkParameters) -> str:
    """Return the media type of a body; its charset goes to the parameters, unless these name one.

    Raises:
        UnsupportedType: the media type is none that is read here, or is not written in this charset.
    """
    media_type = header.partition(";")[0].strip().lower()
    if media_type not in MEDIA_TYPES:
        raise UnsupportedType(f"Send the body as Content-Type: {' or '.join(MEDIA_TYPES)}.")
    if charset := _CHARSET.search(header):
        is_utf8 = require_charset(charset[1]) == "utf-8"
        if not is_utf8 and MEDIA_TYPES[media_type] not in CHARACTER_FORMATS:
            raise UnsupportedType(f"Send the body in UTF-8, not in {charset[1][:50]}.")
        if not is_utf8 and parameters.charset is None:
            parameters.charset = charset[1]
    return media_type


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
    check_parameters(parameters, datasets)
    if linked_datasets(datasets):
        chunk_rows = min(chunk_rows, _LINKED_CHUNK_ROWS)

    def open_rows(chunks: Any) -> Rows:
        return map_table(open_body(chunks, media_type, parameters), parameters.wanted(), datasets)

    return BulkUpload(open_rows, datasets, parameters.on_error == "abort", chunk_rows, allowed)


def check_parameters(parameters: BulkParameters, datasets: Datasets) -> None:
    """Check what can be checked before the body comes.

    Raises:
        InvalidFields: a parameter is wrong.
    """
    if parameters.dataset is not None:
        require_dataset(parameters.dataset, datasets)
        require_dataset_allowed(parameters.dataset)
    if parameters.charset is not None:
        try:
            require_charset(parameters.charset)
        except UnsupportedType as error:
            raise InvalidFields([FieldError("unknown_charset", error.detail, parameter="charset")]) from None
    check_targets(parse_label_map(parameters.label_map), datasets, parameters.dataset)
    if parameters.metadata is not None and not split_names(parameters.metadata):
        raise InvalidFields(
            [FieldError("malformed", "must be all, none, or names of columns", parameter="metadata")]
        )


def open_body(chunks: Any, media_type: str, parameters: BulkParameters) -> Table:
    """Read the header or schema of a body; raises as `open_table` does."""
    chooses = parameters.wanted().chooses
    return open_table(
        chunks,
        MEDIA_TYPES[media_type],
        charset=require_charset(parameters.charset) if parameters.charset else None,
        delimiter=DELIMITERS[parameters.delimiter] if parameters.delimiter else None,
        parse=_read_object if chooses else _read_submission,
    )


def _read_submission(value: bytes) -> Any:
    return read_quickly(value) or _read_object(value)


def _read_object(value: bytes) -> Any:
    return from_json(value, allow_inf_nan=False)
