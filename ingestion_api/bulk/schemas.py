"""The parameters and results of bulk uploads, and how OpenAPI describes their bodies and answers."""

import re
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from core.datasets import Datasets
from core.tables.opening import CHARACTER_FORMATS, JSON_FORMATS, MEDIA_TYPES
from core.tables.text_lines import require_charset
from core.web.keys import require_dataset_allowed
from core.web.openapi import DATASET_NAME, Responses, answer, reference, refusals
from core.web.problems import (
    FieldError,
    InvalidFields,
    Malformed,
    Problem,
    TooLarge,
    Unavailable,
    UnsupportedType,
    require_dataset,
)
from ingestion_api.bulk.label_map import LABEL_MAP, check_targets, parse_label_map, split_names
from ingestion_api.dependencies import BodyTimeout
from ingestion_api.texts.schemas import Line, TextCreate

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

    @property
    def chooses(self) -> bool:
        """Whether a parameter names columns: then other fields of JSON rows are not errors."""
        return any(getattr(self, name) is not None for name in _COLUMNS)

    @property
    def defaults(self) -> dict[str, str]:
        """The fields of rows that do not have them."""
        given = {"dataset": self.dataset, "source": self.source}
        return {name: value for name, value in given.items() if value is not None}

    @property
    def all_metadata(self) -> bool:
        """Whether every other column is metadata."""
        return self.metadata == "all"

    @property
    def metadata_names(self) -> list[str]:
        """The columns that become metadata, if not all do."""
        return [] if self.metadata in {"none", "all"} else split_names(self.metadata or "")


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


def check_parameters(parameters: BulkParameters, datasets: Datasets, media_type: str) -> None:
    """Check what can be checked before the body comes.

    Raises:
        InvalidFields: a parameter is wrong.
    """
    if parameters.dataset is not None:
        require_dataset(parameters.dataset, datasets)
        require_dataset_allowed(parameters.dataset)
    if parameters.charset is not None:
        try:
            charset = require_charset(parameters.charset)
        except UnsupportedType as error:
            raise InvalidFields([FieldError("unknown_charset", error.detail, parameter="charset")]) from None
        if charset != "utf-8" and MEDIA_TYPES[media_type] in JSON_FORMATS:
            detail = "must be utf-8 for JSON"
            raise InvalidFields([FieldError("charset_not_utf8", detail, parameter="charset")])
    check_targets(parse_label_map(parameters.label_map), datasets, parameters.dataset)
    if parameters.metadata is not None and not split_names(parameters.metadata):
        raise InvalidFields(
            [FieldError("malformed", "must be all, none, or names of columns", parameter="metadata")]
        )


class RowsRejected(Problem):
    """A row was rejected with `on_error=abort`, so that nothing is stored."""

    status = 422
    code = "rows_rejected"

    def __init__(self, count: int) -> None:
        super().__init__(f"{count} rows were rejected; nothing is stored.")


class RowError(BaseModel):
    """Why one row of a bulk upload was rejected."""

    row: int = Field(description="1-based; blank lines count, a CSV header does not.")
    code: str
    detail: str


class ErrorGroup(BaseModel):
    """Rows that were rejected for the same reason."""

    code: str
    detail: str
    count: int
    rows: list[int] = Field(description="The first 5.")


class BulkResult(BaseModel):
    """The result of a bulk upload: accepted + duplicates + rejected = received."""

    received: int
    accepted: int
    duplicates: int
    rejected: int
    errors: list[RowError] = Field(description="The first 100.")
    error_groups: list[ErrorGroup] = Field(description="Each reason once, the commonest first; 20 at most.")


_ROWS = [{"text": "You are all idiots.", "label": "toxic"}, {"text": "Thanks!"}]
_TEXT_ROWS = {
    "application/x-ndjson": '{"text": "You are all idiots.", "label": "toxic"}\n{"text": "Thanks!"}\n',
    "application/jsonl": '{"text": "You are all idiots.", "label": "toxic"}\n{"text": "Thanks!"}\n',
    "text/csv": "text,label\nYou are all idiots.,toxic\nThanks!,\n",
    "text/tab-separated-values": "text\tlabel\nYou are all idiots.\ttoxic\nThanks!\t\n",
}
# The second kind of row: the API accepts any value as a row and rejects a bad one alone.
_ARRAY = {"type": "array", "items": {"anyOf": [reference(TextCreate), {"description": "Rejected, alone."}]}}
ROW_ERROR = {
    "row": 3,
    "code": "unknown_label",
    "detail": 'label "1" is not one of toxic, non_toxic; map it with label_map=1:toxic',
}
ERROR_GROUP = {"code": ROW_ERROR["code"], "detail": ROW_ERROR["detail"], "count": 1, "rows": [3]}
_COUNTS = {"received": 3, "accepted": 1, "duplicates": 1, "rejected": 1}
_NOTHING_STORED = {"received": 3, "accepted": 0, "duplicates": 0, "rejected": 1}


def _counting(refused: Problem, counts: dict[str, Any]) -> Problem:
    """Return a problem that carries the counts of the rows before it."""
    refused.extra = counts | {"errors": [ROW_ERROR]}
    return refused


BULK_BODY: dict[str, Any] = {
    "required": True,
    "content": {
        "application/json": {"schema": _ARRAY, "example": _ROWS},
        **{kind: {"schema": {"type": "string"}, "example": rows} for kind, rows in _TEXT_ROWS.items()},
        **{
            kind: {"schema": {"type": "string", "format": "binary"}, "example": "the bytes of the file"}
            for kind in (
                "application/vnd.apache.parquet",
                "application/parquet",
                "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
            )
        },
    },
}
BULK_STORED: Responses = {
    200: answer(
        "The counts of stored and rejected rows.",
        _COUNTS | {"errors": [ROW_ERROR], "error_groups": [ERROR_GROUP]},
    ),
    **refusals(
        _counting(Malformed("The body ends before its array does.", code="malformed_json"), _COUNTS),
        _counting(BodyTimeout(30), _COUNTS),
        _counting(TooLarge("A row is longer than 1048576 bytes.", code="row_too_large"), _COUNTS),
        UnsupportedType("Send the body as Content-Type: application/x-ndjson or …"),
        _counting(RowsRejected(1), _NOTHING_STORED),
        Unavailable("Too many bulk uploads are under way.", code="bulk_busy", retry_after_seconds=5),
        scope="ingest",
    ),
}
