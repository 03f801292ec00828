"""Previews: reads the beginning of a body as an import would, in a separate process. Stores nothing."""

from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import orjson
from pydantic import BaseModel, Field

from core.datasets import DEFAULT_DATASET, Datasets
from core.tables.decoding import PlainBody, recognise_encoding
from core.tables.opening import CHARACTER_FORMATS, MEDIA_TYPES
from core.tables.rows import ColumnsRefused, RowRefused, Table
from core.tables.text_lines import guess_charset
from core.web.openapi import Responses, answer, refusals, wrong_parameter
from core.web.problems import Malformed, Problem, TooLarge, Unavailable, UnsupportedType
from ingestion_api.bulk.batches import Batch, BulkUpload, Reasons, check_row, to_json, to_storable
from ingestion_api.bulk.label_map import LabelMap
from ingestion_api.bulk.mapping import assign_columns
from ingestion_api.bulk.pipes import reporting_to
from ingestion_api.bulk.schemas import BulkParameters, ErrorGroup
from ingestion_api.bulk.store import prepare_process
from ingestion_api.dependencies import BodyTimeout
from ingestion_api.imports.proposal import Profile, profile_rows, propose
from ingestion_api.settings import IngestionSettings
from ingestion_api.texts.submissions import NewText

# Of most formats the beginning is read; the index of Parquet and .xlsx is at the end.
_FIRST_BYTES = 1024 * 1024
_WHOLE_BYTES = 16 * _FIRST_BYTES

_ROWS = 2000
_SHOWN_ROWS = 20
_PROFILED_ROWS = 1000

Role = Literal["text", "label", "score", "source", "external_id", "dataset", "metadata"]


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


def _too_large() -> TooLarge:
    return TooLarge(
        f"To read Parquet or .xlsx takes the whole file, and a preview takes {_WHOLE_BYTES >> 20} MiB of it. "
        "Send the columns and a few rows as a file of their own, or start the import.",
        code="preview_too_large",
    )


_REASON = {"code": "wrong_cell_count", "detail": "3 cells, but the header has 2; see line 3"}
_EXAMPLE: dict[str, Any] = {
    "format": "csv",
    "media_type": "text/csv",
    "content_encoding": "identity",
    "charset": "utf-8",
    "delimiter": ";",
    "dataset": "toxicity",
    "labels": ["toxic", "non_toxic"],
    "columns": [
        {"name": "comment", "type": "string", "samples": ["You are all idiots."], "empty": 0, "roles": ["text"]},
        {"name": "toxic", "type": "integer", "samples": ["1"], "empty": 0, "roles": ["label"]},
    ],
    "label_values": [{"value": "1", "rows": 1, "label": "toxic"}],
    "parameters": {"text": "comment", "label": "toxic", "label_map": "1:toxic"},
    "proposed": ["label", "label_map", "text"],
    "received": 2,
    "rejected": 1,
    "complete": True,
    "rows": [{"row": 1, "submission": {"text": "You are all idiots.", "label": "toxic"}}],
    "rejects": [{"row": 2, **_REASON, "fields": None}],
    "errors": [{**_REASON, "count": 1, "rows": [2]}],
    "problem": None,
}
IMPORT_PREVIEWED: Responses = {
    200: answer("How the body would be read.", _EXAMPLE),
    **refusals(
        Malformed("The body is not a JSON array of objects, one for each text …", code="malformed_json"),
        BodyTimeout(30),
        _too_large(),
        UnsupportedType("Send the body as Content-Type: application/x-ndjson or …"),
        Unavailable("Too many bulk uploads are under way.", code="bulk_busy", retry_after_seconds=5),
        scope="ingest",
    ),
    422: wrong_parameter("dataset", "unknown_dataset", "must be one of: toxicity"),
}


class CutHere(Exception):
    """The body is longer than the part that was read."""


@dataclass(frozen=True, slots=True)
class BodyStart:
    """The beginning of a body, and how to read it. `is_whole`: nothing follows."""

    upload: BulkUpload
    body: bytes
    is_whole: bool

    def chunks(self) -> PlainBody:
        """Return an iterator over the body from its start; it raises CutHere where the part ends."""
        return recognise_encoding(PlainBody(self._parts(), self.upload.encoding))

    def _parts(self) -> Iterator[bytes]:
        yield self.body
        if not self.is_whole:
            raise CutHere


async def read_start(upload: BulkUpload, stream: AsyncIterator[bytes]) -> BodyStart:
    """Read as much of a body as a preview takes; raises as `stream` does."""
    start = bytearray()
    is_indexed = MEDIA_TYPES[upload.media_type] in {"parquet", "xlsx"}
    async for part in stream:
        start += part
        is_indexed = is_indexed or start.startswith((b"PAR1", b"PK\x03\x04"))
        most = _WHOLE_BYTES if is_indexed else _FIRST_BYTES
        if len(start) > most:
            return BodyStart(upload, bytes(start[:most]), is_whole=False)
    return BodyStart(upload, bytes(start), is_whole=True)


def preview_body(start: BodyStart, settings: IngestionSettings, reports: Path) -> dict[str, Any]:
    """Return the fields of `Preview`.

    Raises:
        Problem: the body cannot be read.
    """
    prepare_process(settings)
    try:
        with reporting_to(reports):
            found: dict[str, Any] = to_storable(_preview(start))
    except CutHere:
        raise _too_large() from None
    return found


def _preview(start: BodyStart) -> dict[str, Any]:
    upload = start.upload
    given = upload.parameters
    name = given.dataset or DEFAULT_DATASET
    likely = given.model_copy(update={"charset": given.charset or _guess_charset(start)})
    table, profiles = _profile(start, likely)
    likely = propose(profiles, likely, upload.datasets, is_json=table.columns is None)
    before = given.model_dump(exclude_none=True, exclude_defaults=True)
    parameters = likely.model_dump(exclude_none=True, exclude_defaults=True) | before
    return {
        "format": table.format,
        "media_type": _media_type(table, upload.media_type),
        "content_encoding": start.chunks().encoding,
        "charset": table.charset,
        "delimiter": table.delimiter,
        "dataset": name,
        "labels": list(upload.datasets[name].labels),
        "columns": _columns(profiles, likely),
        "label_values": _label_values(profiles, likely, upload.datasets, name),
        "parameters": parameters,
        "proposed": sorted(parameters.keys() - before.keys()),
        **_check(start, replace(upload, parameters=likely)),
    }


def _guess_charset(start: BodyStart) -> str | None:
    """Return the likely charset of a CSV that is not UTF-8 and has no byte order mark."""
    if MEDIA_TYPES[start.upload.media_type] not in CHARACTER_FORMATS:
        return None
    table = start.upload.open_table(start.chunks())
    if table.format != "csv" or table.charset != "utf-8":
        return None
    sample = b"".join(islice(_until(CutHere, start.chunks()), 32))
    try:
        sample[: sample.rfind(b"\n") + 1 or None].decode()
    except UnicodeDecodeError:
        return guess_charset(sample)
    return None


def _until(error: type[Exception], items: Iterable[Any]) -> Iterator[Any]:
    with suppress(error):
        yield from items


def _profile(start: BodyStart, parameters: BulkParameters) -> tuple[Table, list[Profile]]:
    as_json = parameters.model_copy(update={"metadata": parameters.metadata or "none"})  # objects, not submissions
    table = replace(start.upload, parameters=as_json).open_table(start.chunks())
    read = table.read(range(len(table.columns or [])))
    # `_check` reports a fault.
    rows = (row for _, row in _until(Problem, _until(CutHere, read)))
    cells = (row.cells if isinstance(row, RowRefused) else row for row in rows)
    return table, profile_rows(table.columns, islice((c for c in cells if c is not None), _PROFILED_ROWS))


def _media_type(table: Table, sent_as: str) -> str:
    known = {sent_as: MEDIA_TYPES[sent_as].replace("tsv", "csv")} | MEDIA_TYPES
    return next((media_type for media_type, format_ in known.items() if format_ == table.format), sent_as)


def _columns(profiles: list[Profile], parameters: BulkParameters) -> list[dict[str, Any]]:
    columns = [profile.column for profile in profiles]
    try:
        fields, metadata = assign_columns(columns, parameters)
    except ColumnsRefused:  # `problem` reports it
        fields, metadata = {}, []
    roles = [*fields.items(), *(("metadata", position) for position in metadata)]
    return [
        {
            "name": profile.column.name,
            "type": profile.type,
            "samples": profile.samples,
            "empty": profile.empty,
            "roles": [role for role, found in roles if found == position],
        }
        for position, profile in enumerate(profiles)
    ]


def _label_values(
    profiles: list[Profile], parameters: BulkParameters, datasets: Datasets, dataset: str
) -> list[dict[str, Any]]:
    name = parameters.label or "label"
    profile = next((profile for profile in profiles if profile.column.name == name), None)
    if profile is None or not profile.is_category:
        return []
    find, labels = LabelMap(parameters.label_map, datasets).find, datasets[dataset].labels
    found = ((value, rows, find(value)) for value, rows in sorted(profile.values.items()))
    return [{"value": v, "rows": n, "label": label if label in labels else None} for v, n, label in found]


def _check(start: BodyStart, upload: BulkUpload) -> dict[str, Any]:
    """Return the rows that can be stored, why others cannot, and why the import would fail."""
    batch, numbers = Batch(), list[int]()
    problem, is_complete = None, True
    try:
        rows = upload.open_rows(start.chunks())
        for number, row in rows.rows:
            if batch.received == _ROWS:
                raise CutHere
            check_row(batch, number, row, rows, upload)
            if len(batch.rows) > len(numbers):
                numbers.append(number)
    except CutHere:
        is_complete = False
    except Problem as error:
        problem = error.as_dict()
    reasons = Reasons()
    reasons.add(batch.rejects)
    return {
        "received": batch.received,
        "rejected": len(batch.rejects),
        "complete": is_complete,
        "rows": [
            {"row": number, "submission": _submission(row)}
            for number, row in islice(zip(numbers, batch.rows, strict=True), _SHOWN_ROWS)
        ],
        "rejects": [
            asdict(reject) | {"fields": orjson.loads(to_json(fields) or "null")}
            for reject, fields in islice(zip(batch.rejects, batch.rejected_fields, strict=True), _SHOWN_ROWS)
        ],
        "errors": reasons.as_list(),
        "problem": problem,
    }


def _submission(row: NewText) -> dict[str, Any]:
    fields = {
        "text": row.text,
        "label": row.claimed_label,
        "score": row.score,
        "source": row.source,
        "external_id": row.external_id,
        "dataset": None if row.dataset == DEFAULT_DATASET else row.dataset,
        "metadata": orjson.loads(row.metadata) or None,
    }
    return {name: value for name, value in fields.items() if value is not None}
