"""Reads the beginning of a body as an import would, in a separate process. Stores nothing."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import orjson

from core.datasets import DEFAULT_DATASET, Datasets
from core.tables.decoding import PlainBody, recognise_encoding
from core.tables.opening import MEDIA_TYPES
from core.tables.rows import ColumnsRefused, RowRefused, Table
from core.tables.text_lines import guess_charset
from core.web.problems import Problem
from ingestion_api.bulk.batches import Batch, check_row, group_rejects
from ingestion_api.bulk.mapping import find_metadata, find_roles
from ingestion_api.bulk.parameters import BulkParameters, make_upload, open_body
from ingestion_api.bulk.pipes import reporting_to
from ingestion_api.bulk.schemas import ErrorGroup
from ingestion_api.bulk.store import prepare_process
from ingestion_api.imports.runs.rejects import to_json, to_storable
from ingestion_api.previews.proposal import Profile, profile_rows, propose
from ingestion_api.previews.schemas import (
    Preview,
    PreviewColumn,
    PreviewReject,
    PreviewRow,
    PreviewTooLarge,
    PreviewValue,
)
from ingestion_api.settings import IngestionSettings
from ingestion_api.texts.submissions import NewText

# Of most formats the beginning is read; the index of Parquet and .xlsx is at the end.
FIRST_BYTES = 1024 * 1024
WHOLE_BYTES = 16 * FIRST_BYTES

_ROWS = 2000
_SHOWN_ROWS = 20
_PROFILED_ROWS = 1000


class CutHere(Exception):
    """The body is longer than the part that was read."""


@dataclass(frozen=True, slots=True)
class PreviewRequest:
    """The beginning of a body, in values that travel between processes. `is_whole`: nothing follows."""

    body: bytes
    is_whole: bool
    media_type: str
    encoding: str
    parameters: BulkParameters
    datasets: Datasets
    allowed: frozenset[str] | None

    def chunks(self) -> PlainBody:
        """Return an iterator over the body from its start; it raises CutHere where the part ends."""
        return recognise_encoding(PlainBody(self._parts(), self.encoding))

    def _parts(self) -> Iterator[bytes]:
        yield self.body
        if not self.is_whole:
            raise CutHere


def preview_body(request: PreviewRequest, settings: IngestionSettings, reports: Path) -> dict[str, Any]:
    """Return the fields of `Preview`.

    Raises:
        Problem: the body cannot be read, or a parameter is wrong.
    """
    prepare_process(settings)
    try:
        with reporting_to(reports):
            found: dict[str, Any] = to_storable(_preview(request).model_dump())
    except CutHere:
        raise PreviewTooLarge(
            f"To read Parquet or .xlsx takes the whole file, and a preview takes {WHOLE_BYTES >> 20} MiB of it. "
            "Send the columns and a few rows as a file of their own, or start the import."
        ) from None
    return found


def _preview(request: PreviewRequest) -> Preview:
    given = request.parameters
    parameters = given.model_copy()
    if parameters.charset is None:
        parameters.charset = _guess_charset(request)
    table, profiles = _profile(request, parameters)
    parameters = propose(profiles, parameters, request.datasets, is_json=table.columns is None)
    checked = _check(request, parameters)
    before = given.model_dump(exclude_none=True, exclude_defaults=True)
    final = parameters.model_dump(exclude_none=True, exclude_defaults=True) | before
    name = given.dataset or DEFAULT_DATASET
    return Preview(
        format=table.format,
        media_type=_media_type(table, request.media_type),
        content_encoding=request.chunks().encoding,
        charset=table.charset,
        delimiter=table.delimiter,
        dataset=name,
        labels=list(request.datasets[name].labels),
        columns=_columns(table, profiles, parameters),
        label_values=_label_values(profiles, parameters, request.datasets[name].labels),
        parameters=final,
        proposed=sorted(final.keys() - before.keys()),
        received=checked.batch.received,
        rejected=len(checked.batch.rejects),
        complete=checked.is_complete,
        rows=[PreviewRow(row=n, submission=_submission(row)) for n, row in checked.first()],
        rejects=list(_rejects(checked.batch)),
        errors=[ErrorGroup.model_validate(group) for group in group_rejects(checked.batch.rejects)],
        problem=None if checked.problem is None else checked.problem.as_dict(),
    )


def _guess_charset(request: PreviewRequest) -> str | None:
    """Return the likely charset of a CSV that is not UTF-8 and has no byte order mark."""
    if MEDIA_TYPES[request.media_type] not in {"csv", "tsv"}:
        return None
    table = open_body(request.chunks(), request.media_type, request.parameters)
    if table.format != "csv" or table.charset != "utf-8":
        return None
    start = b"".join(islice(_until_cut(request.chunks()), 32))
    try:
        start[: start.rfind(b"\n") + 1 or None].decode()
    except UnicodeDecodeError:
        return guess_charset(start)
    return None


def _until_cut(items: Iterable[Any]) -> Iterator[Any]:
    try:
        yield from items
    except CutHere:
        return


def _profile(request: PreviewRequest, parameters: BulkParameters) -> tuple[Table, list[Profile]]:
    as_json = parameters.model_copy(update={"metadata": parameters.metadata or "none"})  # objects, not submissions
    table = open_body(request.chunks(), request.media_type, as_json)
    read = (row for _, row in _until_cut(table.read(_readable(table))))
    rows = (row.cells if isinstance(row, RowRefused) else row for row in read)
    columns = None if table.columns is None else [table.columns[n] for n in _readable(table)]
    rows = (row for row in _until_problem(rows) if row is not None)
    return table, profile_rows(columns, islice(rows, _PROFILED_ROWS))


def _readable(table: Table) -> list[int]:
    return list(range(len(table.columns or [])))


def _until_problem(rows: Iterator[Any]) -> Iterator[Any]:
    """Yield rows up to a fault; `_check` reports the fault."""
    try:
        yield from rows
    except Problem:
        return


@dataclass(slots=True)
class Checked:
    """The rows that were read: those that can be stored with their numbers, and why the import would fail."""

    batch: Batch = field(default_factory=Batch)
    numbers: list[int] = field(default_factory=list)
    problem: Problem | None = None
    is_complete: bool = True

    def first(self) -> Iterator[tuple[int, NewText]]:
        """Yield the first rows that can be stored."""
        return islice(zip(self.numbers, self.batch.rows, strict=True), _SHOWN_ROWS)


def _check(request: PreviewRequest, parameters: BulkParameters) -> Checked:
    upload = make_upload(request.media_type, parameters, request.datasets, _ROWS, request.allowed)
    checked = Checked()
    batch = checked.batch
    try:
        rows = upload.open(request.chunks())
        for number, row in rows.rows:
            if batch.received == _ROWS:
                raise CutHere
            check_row(batch, number, row, rows, upload)
            if len(batch.rows) > len(checked.numbers):
                checked.numbers.append(number)
    except CutHere:
        checked.is_complete = False
    except Problem as problem:
        checked.problem = problem
    return checked


def _media_type(table: Table, sent_as: str) -> str:
    known = {sent_as: MEDIA_TYPES[sent_as].replace("tsv", "csv")} | MEDIA_TYPES
    return next((media_type for media_type, format_ in known.items() if format_ == table.format), sent_as)


def _columns(table: Table, profiles: list[Profile], parameters: BulkParameters) -> list[PreviewColumn]:
    columns = [profile.column for profile in profiles]
    wanted = parameters.wanted()
    try:
        roles = [(position, role) for role, position in find_roles(columns, wanted).items()]
        taken = {position for position, _ in roles}
        roles += [(position, "metadata") for position in find_metadata(columns, wanted, taken)]
    except ColumnsRefused:  # `problem` reports it
        roles = []
    return [
        PreviewColumn.model_validate(
            {
                "name": profile.column.name,
                "type": profile.type,
                "samples": profile.samples,
                "empty": profile.empty,
                "roles": [role for found, role in roles if found == position],
            }
        )
        for position, profile in enumerate(profiles)
    ]


def _label_values(
    profiles: list[Profile], parameters: BulkParameters, labels: tuple[str, ...]
) -> list[PreviewValue]:
    name = parameters.label or "label"
    profile = next((profile for profile in profiles if profile.column.name == name), None)
    if profile is None or not profile.is_category:
        return []
    find = parameters.wanted().label_map.find
    found = ((value, rows, find(value)) for value, rows in sorted(profile.values.items()))
    return [PreviewValue(value=v, rows=n, label=label if label in labels else None) for v, n, label in found]


def _rejects(batch: Batch) -> Iterator[PreviewReject]:
    for reject, fields in islice(zip(batch.rejects, batch.rejected_fields, strict=True), _SHOWN_ROWS):
        as_json = to_json(fields)
        sent = None if as_json is None else orjson.loads(as_json)
        yield PreviewReject(row=reject.row, code=reject.code, detail=reject.detail, fields=sent)


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
