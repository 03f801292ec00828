"""What travels on the wire about imports."""

from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from pydantic import BaseModel, Field
from sqlalchemy import RowMapping

from core.web.openapi import IMPORT_BYTES
from core.web.problems import Problem
from ingestion_api.bulk.schemas import ErrorGroup, RowError
from ingestion_api.imports.runs.rejects import to_storable

# What a structured integer of HTTP can hold (RFC 9651).
_MOST_BYTES = 999_999_999_999_999


# An import that is deleted is not there any more.
VisibleState = Literal["receiving", "waiting", "running", "done", "failed"]


class UploadHeaders(BaseModel):
    """The upload's headers, as in draft-ietf-httpbis-resumable-upload."""

    upload_complete: Literal["?0", "?1"] | None = Field(
        None, description="`?0`: more of the body follows in further requests. `?1`: this is its end."
    )
    upload_length: int | None = Field(
        None, ge=0, le=_MOST_BYTES, description="Bytes of the whole body.", json_schema_extra=IMPORT_BYTES
    )

    @property
    def complete(self) -> bool | None:
        """Whether this request brings the end of the body; None: the client does not say."""
        return None if self.upload_complete is None else self.upload_complete == "?1"


class AppendHeaders(UploadHeaders):
    """The headers of a request that continues an upload."""

    upload_offset: int = Field(ge=0, le=_MOST_BYTES, description="Where in the body this request begins.")


class Upload(BaseModel):
    """How much of the body is stored, as it was sent."""

    offset: int = Field(description="Bytes that are stored: go on from here.")
    length: int | None = Field(description="Bytes of the whole body; null while nobody knows.")
    complete: bool


class Progress(BaseModel):
    """How far the rows are stored."""

    rows: int = Field(description="The last row that is counted.")
    bytes: int = Field(description="Bytes of the body that were read.")
    bytes_total: int | None
    rows_per_second: float | None = Field(description="Since the start; null before the first row.")


class Import(BaseModel):
    """An import; its counts have the names of the bulk answer: accepted + duplicates + rejected = received."""

    id: UUID
    state: VisibleState
    media_type: str
    encoding: str
    parameters: dict[str, str]
    created_at: datetime
    received_at: datetime | None = Field(description="When the whole body was stored.")
    started_at: datetime | None
    finished_at: datetime | None
    upload: Upload
    progress: Progress
    received: int
    accepted: int
    duplicates: int
    rejected: int
    rejects_kept: int = Field(description="Rejected rows at /imports/{id}/rejects: the first ones.")
    problem: dict[str, Any] | None = Field(description="Why it failed.")


class ImportRead(Import):
    """An import with the first rows that were rejected."""

    errors: list[RowError] = Field(description="The first 100; more are at /imports/{id}/rejects.")
    error_groups: list[ErrorGroup] = Field(
        description="Of the rejects that are kept: each reason once, the commonest first; 20 at most."
    )


class ImportList(BaseModel):
    """A page of imports, newest first."""

    items: list[Import]
    next_cursor: str | None


def import_fields(row: RowMapping) -> dict[str, Any]:
    """Return the fields of `Import` from a row of the table."""
    complete = row["received_at"] is not None
    length = row["upload_offset"] if complete else row["upload_length"]
    progress = {
        "rows": row["last_row"],
        "bytes": row["bytes_read"],
        "bytes_total": length,
        "rows_per_second": _rows_per_second(row),
    }
    return dict(row) | {
        "problem": to_storable(row["problem"]),  # what an older release has stored
        "upload": {"offset": row["upload_offset"], "length": length, "complete": complete},
        "progress": progress,
    }


def _rows_per_second(row: RowMapping) -> float | None:
    if not row["last_row"]:
        return None
    seconds = ((row["finished_at"] or row["now"]) - row["started_at"]).total_seconds()
    return round(row["last_row"] / seconds, 1) if seconds > 0 else None


Role = Literal["text", "label", "score", "source", "external_id", "dataset", "metadata"]


PREVIEW_EXAMPLE: dict[str, Any] = {
    "format": "csv",
    "media_type": "text/csv",
    "content_encoding": "identity",
    "charset": "windows-1252",
    "delimiter": ";",
    "dataset": "toxicity",
    "labels": ["toxic", "non_toxic"],
    "columns": [
        {
            "name": "comment_text",
            "type": "string",
            "samples": ["You are all idiots.", "Schönen Dank!"],
            "empty": 0,
            "roles": ["text"],
        },
        {"name": "toxic", "type": "integer", "samples": ["1", "0"], "empty": 0, "roles": ["label"]},
    ],
    "label_values": [
        {"value": "0", "rows": 1, "label": "non_toxic"},
        {"value": "1", "rows": 1, "label": "toxic"},
    ],
    "parameters": {
        "text": "comment_text",
        "label": "toxic",
        "label_map": "0:non_toxic,1:toxic",
        "charset": "windows-1252",
    },
    "proposed": ["charset", "label", "label_map", "text"],
    "received": 3,
    "rejected": 1,
    "complete": True,
    "rows": [
        {"row": 1, "submission": {"text": "You are all idiots.", "label": "toxic"}},
        {"row": 2, "submission": {"text": "Schönen Dank!", "label": "non_toxic"}},
    ],
    "rejects": [
        {
            "row": 3,
            "code": "wrong_cell_count",
            "detail": "3 cells, but the header has 2; see line 4",
            "fields": None,
        }
    ],
    "errors": [
        {
            "code": "wrong_cell_count",
            "detail": "3 cells, but the header has 2; see line 4",
            "count": 1,
            "rows": [3],
        }
    ],
    "problem": None,
}


class PreviewColumn(BaseModel):
    """A column, and what it would be."""

    name: str
    type: str = Field(description="`string`, `integer`, `number`, `list` …; of CSV by its first values.")
    samples: list[str] = Field(description="The first 5 different values, 200 characters of each at most.")
    empty: int = Field(description="Rows without a value, of those that were read.")
    roles: list[Role] = Field(description="What it would be; empty: it would be left out.")


class PreviewValue(BaseModel):
    """A value of the label column."""

    value: str
    rows: int
    label: str | None = Field(description="The label that it means; null: its rows would be rejected.")


class PreviewRow(BaseModel):
    """A row as the submission that it would be."""

    row: int
    submission: dict[str, Any] = Field(description="As in the body of `POST /texts`.")


class PreviewReject(BaseModel):
    """A row that would be rejected."""

    row: int
    code: str
    detail: str
    fields: Any = Field(description="The row as it was read; null if it could not be read, or is over 64 KiB.")


class Preview(BaseModel):
    """How a body would be read."""

    format: str = Field(description="What the body is: `csv`, `ndjson`, `json`, `parquet` or `xlsx`.")
    media_type: str = Field(description="The Content-Type to import it with.")
    content_encoding: str = Field(description="The Content-Encoding to import it with; `identity`: none.")
    charset: str | None = Field(description="Null where the format has none.")
    delimiter: str | None = Field(description="Of CSV: the character.")
    dataset: str = Field(description="The dataset of rows that name none.")
    labels: list[str] = Field(description="The labels of that dataset.")
    columns: list[PreviewColumn] = Field(description="Of JSON: the fields that were seen.")
    label_values: list[PreviewValue] = Field(description="The values of the label column, up to 50; else empty.")
    parameters: dict[str, str] = Field(description="For `POST /imports`: those of this request, and proposals.")
    proposed: list[str] = Field(description="Which of the parameters are proposals.")
    received: int = Field(description="Rows that were read.")
    rejected: int = Field(description="Those of them that would be rejected.")
    complete: bool = Field(description="Whether these were all rows.")
    rows: list[PreviewRow] = Field(description="The first 20 that would be stored.")
    rejects: list[PreviewReject] = Field(description="The first 20 that would be rejected.")
    errors: list[ErrorGroup] = Field(description="Each reason once, the commonest first; 20 at most.")
    problem: dict[str, Any] | None = Field(description="Why the import would fail, as it would say so.")


class PreviewTooLarge(Problem):
    """A format whose index is at its end is too long to be read as a whole."""

    status = 413
    code = "preview_too_large"
