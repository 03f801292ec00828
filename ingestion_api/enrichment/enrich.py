"""Redacts a submission and detects its language before it is stored, as its dataset's settings say."""

from collections import Counter
from dataclasses import dataclass
from typing import Any

from core.datasets import Dataset, Datasets
from core.web.problems import FieldError, InvalidFields

# Card numbers have at least 13 digits.
_LEAST_CARD = 10**12


@dataclass(frozen=True, slots=True)
class Enriched:
    """The fields of a submission that enrichment changes, and its results. `text` is normalised."""

    text: str
    source: str | None
    external_id: str | None
    metadata: dict[str, Any]
    enrichment: dict[str, Any]


def enrich(fields: Enriched, dataset: Dataset) -> Enriched:
    """Redact a submission and detect its language.

    Raises:
        InvalidFields: a field cannot be redacted.
    """
    if dataset.redact:
        fields = _redact(fields, dataset)
    if dataset.language:
        from ingestion_api.enrichment.language import tell_language

        fields.enrichment["language"] = tell_language(fields.text)._asdict()
    return fields


def prepare(datasets: Datasets) -> None:
    """Load the libraries and models that these datasets need, so that no text waits for them."""
    if any(dataset.redact for dataset in datasets.values()):
        from ingestion_api.enrichment import redaction  # noqa: F401
    if any(dataset.language for dataset in datasets.values()):
        from ingestion_api.enrichment.language import tell_language

        tell_language("loads the model")


def _redact(fields: Enriched, dataset: Dataset) -> Enriched:
    from ingestion_api.enrichment.redaction import Unstable, redact

    counts: Counter[str] = Counter()

    def redacted(value: Any, pointer: str) -> Any:
        if not _may_hold(value):
            return value
        try:
            result, found = redact(str(value), dataset.redact, dataset.phone_regions)
        except Unstable:
            detail = "holds too many things in a row that must be redacted"
            raise InvalidFields([FieldError("not_redactable", detail, pointer=pointer)]) from None
        counts.update(found)
        return result if found else value

    return Enriched(
        redacted(fields.text, "/text"),
        redacted(fields.source, "/source"),
        redacted(fields.external_id, "/external_id"),
        {name: redacted(value, "/metadata") for name, value in fields.metadata.items()},
        {"redacted": dict(counts)} if counts else {},
    )


def _may_hold(value: Any) -> bool:
    """Whether a value may need redaction: any string, and an integer as long as a card number."""
    return isinstance(value, str) or (isinstance(value, int) and value >= _LEAST_CARD)
