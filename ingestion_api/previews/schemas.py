"""The response of a preview, with its example."""

from typing import Any, Literal

from pydantic import BaseModel, Field

from core.web.openapi import Responses, answer, refusals, wrong_parameter
from core.web.problems import Malformed, Problem, Unavailable, UnsupportedType
from ingestion_api.bulk.pipes import BodyTimeout
from ingestion_api.bulk.schemas import ErrorGroup

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
    """A column and its proposed roles."""

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


IMPORT_PREVIEWED: Responses = {
    200: answer("How the body would be read.", PREVIEW_EXAMPLE),
    **refusals(
        Malformed("The body is not a JSON array. Send one object a line …", code="malformed_json"),
        BodyTimeout("Nothing came for 30 seconds."),
        PreviewTooLarge("To read Parquet or .xlsx takes the whole file …"),
        UnsupportedType("Send the body as Content-Type: application/x-ndjson or …"),
        Unavailable("Too many bulk uploads are under way.", code="bulk_busy", retry_after_seconds=5),
        scope="ingest",
    ),
    422: wrong_parameter("dataset", "unknown_dataset", "must be one of: toxicity"),
}
