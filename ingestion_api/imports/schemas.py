"""What travels on the wire about imports."""

from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from pydantic import BaseModel, Field
from sqlalchemy import RowMapping

from core.web.openapi import IMPORT_BYTES
from ingestion_api.texts.schemas import RowError

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
        "upload": {"offset": row["upload_offset"], "length": length, "complete": complete},
        "progress": progress,
    }


def _rows_per_second(row: RowMapping) -> float | None:
    if not row["last_row"]:
        return None
    seconds = ((row["finished_at"] or row["now"]) - row["started_at"]).total_seconds()
    return round(row["last_row"] / seconds, 1) if seconds > 0 else None
