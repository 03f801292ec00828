"""Turns a submission into a row that can be stored, or reports everything that is wrong with it."""

from math import isfinite
from typing import Annotated, Any
from uuid import UUID

import msgspec
import orjson
from msgspec import Meta, Struct
from pydantic import ValidationError
from pydantic_core import from_json

from core.datasets import DEFAULT_DATASET, Datasets
from core.text_identity import TEXT_BYTES, is_visible, normalise, text_key
from core.web.problems import (
    FieldError,
    InvalidFields,
    TooLarge,
    refuse_body,
)
from ingestion_api.enrichment.enrich import Enriched, enrich
from ingestion_api.texts.schemas import METADATA_CHARACTERS, TextCreate

_Line = Annotated[str, Meta(min_length=1, max_length=1000)]
_MetadataName = Annotated[str, Meta(min_length=1, max_length=200)]
_Integer = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
_MetadataValue = bool | _Integer | float | Annotated[str, Meta(max_length=METADATA_CHARACTERS)]
_Metadata = Annotated[dict[_MetadataName, _MetadataValue], Meta(max_length=100)]


class QuickSubmission(Struct, forbid_unknown_fields=True, gc=False):
    """The fields of `TextCreate`; `fits` checks whether the dataset has the label."""

    text: str
    dataset: str | None = None
    label: str | None = None
    score: Annotated[float, Meta(ge=0, le=1)] | None = None
    source: _Line | None = None
    external_id: _Line | None = None
    metadata: _Metadata | None = None


_decode = msgspec.json.Decoder(QuickSubmission).decode


def read_quickly(body: bytes) -> QuickSubmission | None:
    """Return the submission, or None if `TextCreate` has to decide."""
    if rb"\u0000" in body:  # the only form of a NUL character in JSON
        return None
    try:
        return _decode(body)
    except ValueError:
        return None


def convert_quickly(fields: dict[str, Any]) -> QuickSubmission | None:
    """Return the submission with these values, or None if `TextCreate` has to decide."""
    try:
        submission = msgspec.convert(fields, QuickSubmission)
        words = _join_words(submission)
        if not words.isascii():
            words.encode()  # refuses lone surrogates
    except ValueError:
        return None
    numbers = (value for value in (submission.metadata or {}).values() if isinstance(value, float))
    return submission if "\0" not in words and all(map(isfinite, numbers)) else None


def _join_words(submission: QuickSubmission) -> str:
    words = [submission.text, submission.source or "", submission.external_id or ""]
    if submission.metadata:
        words += submission.metadata
        words += [value for value in submission.metadata.values() if isinstance(value, str)]
    return "\n".join(words)


def fits(submission: QuickSubmission, datasets: Datasets) -> bool:
    """Check what the decoder cannot: the text is visible, the dataset is known and has the label."""
    dataset = datasets.get(DEFAULT_DATASET if submission.dataset is None else submission.dataset)
    if dataset is None or not is_visible(submission.text):
        return False
    return submission.label is None or submission.label in dataset.labels


# A submission, or metadata, with more fields gets this one error instead of one for each field.
_MOST_FIELDS = 1000


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
    enrichment: str  # JSON

    @property
    def id(self) -> UUID:
        """The key as a UUID."""
        return UUID(bytes=self.key)


def parse_submission(body: bytes, datasets: Datasets) -> NewText:
    """Read a submission from JSON.

    Raises:
        Malformed, InvalidFields, TooLarge: it cannot be stored.
    """
    quick = read_quickly(body)
    if quick and fits(quick, datasets):
        return _to_row(quick, datasets)
    if len(body) > _MOST_FIELDS:
        _refuse_very_many_fields(_read_or_none(body))
    try:
        submission = TextCreate.model_validate_json(body, context=datasets)
    except ValidationError as error:
        raise refuse_body(error) from None
    return _to_row(submission, datasets)


def check_fields(fields: Any, datasets: Datasets) -> NewText:
    """Read a submission from decoded values; raises the same errors as `parse_submission`."""
    quick = fields if isinstance(fields, QuickSubmission) else convert_quickly(fields)
    if quick and fits(quick, datasets):
        return _to_row(quick, datasets)
    if isinstance(fields, QuickSubmission):
        fields = {name: value for name, value in msgspec.structs.asdict(fields).items() if value is not None}
    _refuse_very_many_fields(fields)
    try:
        submission = TextCreate.model_validate(fields, context=datasets)
    except ValidationError as error:
        raise refuse_body(error) from None
    return _to_row(submission, datasets)


def _read_or_none(body: bytes) -> Any:
    try:
        return from_json(body)
    except ValueError:
        return None  # the model reports the error


def _refuse_very_many_fields(fields: Any) -> None:
    """Refuse very many fields: pydantic would take seconds to report each of them."""
    if not isinstance(fields, dict):
        return
    for value, pointer in ((fields, ""), (fields.get("metadata"), "/metadata")):
        if isinstance(value, dict) and len(value) > _MOST_FIELDS:
            detail = f"must not have {len(value):,} fields"
            raise InvalidFields([FieldError("too_many_fields", detail, pointer=pointer)])


def _to_row(submission: TextCreate | QuickSubmission, datasets: Datasets) -> NewText:
    name = DEFAULT_DATASET if submission.dataset is None else submission.dataset
    dataset = datasets[name]
    text = normalise(submission.text)
    _check_length(text)
    source, external_id, metadata = submission.source, submission.external_id, submission.metadata
    enrichment: dict[str, Any] = {}
    if dataset.enriches:
        given = Enriched(text, source, external_id, metadata, enrichment)
        text, source, external_id, metadata, enrichment = enrich(given, dataset)
        _check_length(text)  # a placeholder may be longer than what it replaces
    return NewText(
        text_key(name, text),  # of the redacted text, so that it reveals nothing about the original
        name,
        text,
        submission.label,
        submission.score,
        source,
        external_id,
        orjson.dumps(metadata).decode() if metadata else "{}",
        orjson.dumps(enrichment).decode() if enrichment else "{}",
    )


def _check_length(text: str) -> None:
    if len(text) * 4 > TEXT_BYTES and len(text.encode()) > TEXT_BYTES:
        raise TooLarge(f"The text is longer than {TEXT_BYTES} bytes of UTF-8.", code="text_too_large")
