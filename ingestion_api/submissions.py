"""From what a client sent to a row that can be stored, or every reason why not."""

from dataclasses import dataclass
from typing import Any
from uuid import UUID

import orjson
from pydantic import ValidationError

from core.datasets import Dataset, Datasets
from core.problems import FieldError, InvalidFields, Malformed, Problem, TooLarge, json_pointer
from core.text_identity import normalise, text_id
from ingestion_api.enrichment.fields import enrich
from ingestion_api.schemas import TEXT_BYTES, TextCreate


@dataclass(frozen=True, slots=True)
class NewText:
    """A checked submission, ready to be stored."""

    id: UUID
    dataset: str
    text: str
    claimed_label: str | None
    score: float | None
    source: str | None
    external_id: str | None
    metadata: str  # JSON
    enrichment: str  # JSON


def parse_submission(body: bytes, datasets: Datasets) -> NewText:
    """Read a submission from JSON.

    Raises:
        Malformed, InvalidFields, TooLarge: what is wrong with it.
    """
    try:
        submission = TextCreate.model_validate_json(body, context=datasets)
    except ValidationError as error:
        raise _refusal(error) from None
    return _to_row(submission, datasets[submission.dataset])


def check_fields(fields: Any, datasets: Datasets) -> NewText:
    """Read a submission from values that are decoded already; raises as `parse_submission` does."""
    try:
        submission = TextCreate.model_validate(fields, context=datasets)
    except ValidationError as error:
        raise _refusal(error) from None
    return _to_row(submission, datasets[submission.dataset])


def _to_row(submission: TextCreate, dataset: Dataset) -> NewText:
    text = normalise(submission.text)
    _check_length(text)
    if dataset.enriches:
        return _to_enriched_row(submission, text, dataset)
    return NewText(
        text_id(submission.dataset, text),
        submission.dataset,
        text,
        submission.label,
        submission.score,
        submission.source,
        submission.external_id,
        orjson.dumps(submission.metadata).decode() if submission.metadata else "{}",
        "{}",
    )


def _to_enriched_row(submission: TextCreate, text: str, dataset: Dataset) -> NewText:
    fields = enrich(submission, text, dataset)
    _check_length(fields.text)  # a placeholder may be longer than what it stands for
    return NewText(
        # Of what is stored: the id tells nothing about what was taken out.
        text_id(submission.dataset, fields.text),
        submission.dataset,
        fields.text,
        submission.label,
        submission.score,
        fields.source,
        fields.external_id,
        orjson.dumps(fields.metadata).decode(),
        orjson.dumps(fields.enrichment).decode(),
    )


def _check_length(text: str) -> None:
    if len(text) * 4 > TEXT_BYTES and len(text.encode()) > TEXT_BYTES:
        raise TooLarge(f"The text is longer than {TEXT_BYTES} bytes of UTF-8.", code="text_too_large")


def _refusal(error: ValidationError) -> Problem:
    errors = error.errors(include_url=False, include_context=False, include_input=False)
    if errors[0]["type"] == "json_invalid":
        return Malformed(f"{errors[0]['msg']}.", code="malformed_json")
    return InvalidFields([FieldError(e["type"], e["msg"], pointer=json_pointer(e["loc"])) for e in errors])
