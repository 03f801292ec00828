"""From what a client sent to a row that can be stored, or every reason why not."""

from typing import Any
from uuid import UUID

import msgspec
import orjson
from msgspec import Struct
from pydantic import ValidationError

from core.datasets import DEFAULT_DATASET, Datasets
from core.problems import FieldError, InvalidFields, Malformed, Problem, TooLarge
from core.text_identity import normalise, text_key
from core.web import json_pointer
from ingestion_api.quick_submission import QuickSubmission, fits, read_quickly
from ingestion_api.schemas import TEXT_BYTES, TextCreate


class NewText(Struct, frozen=True, gc=False):
    """A checked submission, ready to be stored: the values of `repository`'s columns."""

    key: bytes
    dataset: str
    text: str
    claimed_label: str | None
    score: float | None
    source: str | None
    external_id: str | None
    metadata: str  # JSON

    @property
    def id(self) -> UUID:
        """The key as it is shown."""
        return UUID(bytes=self.key)


def parse_submission(body: bytes, datasets: Datasets) -> NewText:
    """Read a submission from JSON.

    Raises:
        Malformed, InvalidFields, TooLarge: what is wrong with it.
    """
    quick = read_quickly(body)
    if quick and fits(quick, datasets):
        return _to_row(quick)
    try:
        submission = TextCreate.model_validate_json(body, context=datasets)
    except ValidationError as error:
        raise _refusal(error) from None
    return _to_row(submission)


def check_fields(fields: Any, datasets: Datasets) -> NewText:
    """Read a submission from values that are decoded already; raises as `parse_submission` does."""
    if isinstance(fields, QuickSubmission):
        if fits(fields, datasets):
            return _to_row(fields)
        fields = {name: value for name, value in msgspec.structs.asdict(fields).items() if value is not None}
    try:
        submission = TextCreate.model_validate(fields, context=datasets)
    except ValidationError as error:
        raise _refusal(error) from None
    return _to_row(submission)


def _to_row(submission: TextCreate | QuickSubmission) -> NewText:
    dataset = DEFAULT_DATASET if submission.dataset is None else submission.dataset
    text = normalise(submission.text)
    if len(text) * 4 > TEXT_BYTES and len(text.encode()) > TEXT_BYTES:
        raise TooLarge(f"The text is longer than {TEXT_BYTES} bytes of UTF-8.", code="text_too_large")
    return NewText(
        text_key(dataset, text),
        dataset,
        text,
        submission.label,
        submission.score,
        submission.source,
        submission.external_id,
        orjson.dumps(submission.metadata).decode() if submission.metadata else "{}",
    )


def _refusal(error: ValidationError) -> Problem:
    errors = error.errors(include_url=False, include_context=False, include_input=False)
    if errors[0]["type"] == "json_invalid":
        return Malformed(f"{errors[0]['msg']}.", code="malformed_json")
    return InvalidFields([FieldError(e["type"], e["msg"], pointer=json_pointer(e["loc"])) for e in errors])
