"""Tests of uploader.argilla.records."""

import json
import re
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uploader.argilla.records import PendingText, Suggestion, to_agent, to_metadata, to_record

_QUESTION = UUID(int=7)
_LABELS = ("toxic", "non_toxic")
_RECEIVED_AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
# From argilla-server 2.8.0, schemas of suggestions
_AGENT = re.compile(r"^[a-zA-Z0-9-_:\.\/\s]*[a-zA-Z0-9][a-zA-Z0-9-_:\.\/\s]*$")

_values = st.one_of(
    st.text(max_size=20), st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.booleans()
)
_names = st.one_of(
    st.text(max_size=12), st.sampled_from(["source", "external_id", "received_at", "position", "metadata_source"])
)


def _text(**changes: Any) -> PendingText:
    values: dict[str, Any] = {
        "id": UUID(int=1),
        "text": "line one\nline two",
        "claimed_label": None,
        "score": None,
        "source": None,
        "external_id": None,
        "metadata": {},
        "enrichment": {},
        "received_at": _RECEIVED_AT,
        "attempts": 0,
    }
    return PendingText(**values | changes)


def test_a_record_has_our_id_and_the_text_as_it_is() -> None:
    record = to_record(_text(), _QUESTION, _LABELS)
    assert record["external_id"] == str(UUID(int=1))
    assert record["fields"] == {"text": "line one\nline two"}


def test_a_record_never_carries_responses() -> None:
    assert "responses" not in to_record(_text(claimed_label="toxic"), _QUESTION, _LABELS)


def test_the_claim_becomes_a_suggestion_of_its_source() -> None:
    record = to_record(_text(claimed_label="toxic", score=0.25, source="forum/1"), _QUESTION, _LABELS)
    assert record["suggestions"] == [
        {"question_id": str(_QUESTION), "value": "toxic", "score": 0.25, "agent": "forum/1"}
    ]


@pytest.mark.parametrize("claim", [None, "obscene"])
def test_without_a_known_claim_nothing_is_suggested(claim: str | None) -> None:
    assert to_record(_text(claimed_label=claim, score=0.5), _QUESTION, _LABELS)["suggestions"] == []


def test_what_the_model_predicts_is_suggested_where_no_claim_is_shown() -> None:
    predicted = Suggestion("toxic", 0.8, "model:0123456789ab")
    text = _text(claimed_label="non_toxic", score=0.9, source="forum")
    shown = to_record(text, _QUESTION, frozenset(), predicted)["suggestions"]
    assert shown == [
        {"question_id": str(_QUESTION), "value": "toxic", "score": 0.8, "agent": "model:0123456789ab"}
    ]
    assert _AGENT.fullmatch(shown[0]["agent"])


@given(st.text())
def test_argilla_takes_every_agent(source: str) -> None:
    agent = to_agent(source)
    assert agent is None or (_AGENT.fullmatch(agent) and len(agent) <= 200)


def test_what_we_know_of_a_text_is_shown() -> None:
    shown = to_metadata(_text(source="forum", external_id="7"))
    assert shown == {"source": "forum", "external_id": "7", "received_at": "2026-01-02T03:04:05+00:00"}


def test_our_position_is_shown_beside_the_senders() -> None:
    shown = to_metadata(_text(page_position=-5, metadata={"position": "left"}))
    assert (shown["position"], shown["metadata_position"]) == (-5, "left")


def test_what_was_found_at_intake_is_shown() -> None:
    enrichment = {"language": {"code": "en", "confidence": 0.9}, "redacted": {"email": 2, "card": 1}}
    shown = to_metadata(_text(enrichment=enrichment, metadata={"language": "fr"}))
    assert (shown["language"], shown["metadata_language"]) == ("en", "fr")
    assert (shown["redacted_email"], shown["redacted_card"]) == (2, 1)


@given(st.dictionaries(_names, _values, max_size=8))
def test_no_term_of_the_sender_is_lost_or_hides_ours(metadata: dict[str, Any]) -> None:
    shown = to_metadata(_text(source="forum", external_id="7", metadata=metadata))
    assert (shown["source"], shown["external_id"]) == ("forum", "7")
    assert len(shown) == 3 + len(metadata)


@given(_values)
def test_every_value_is_one_that_an_index_takes(value: Any) -> None:
    shown = to_metadata(_text(metadata={"term": value}))["term"]
    assert type(shown) in {str, int, float}
    assert not isinstance(shown, int) or -(2**63) <= shown < 2**63


def test_an_agent_is_cut_to_what_argilla_takes() -> None:
    assert to_agent("x" * 300) == "x" * 200


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (True, "true"),
        (0.5, 0.5),
        (2**63 - 1, 2**63 - 1),
        (2**63, str(2**63)),
        (-(2**63), -(2**63)),
        (-(2**63) - 1, str(-(2**63) - 1)),
        (["ä"], '["ä"]'),
    ],
)
def test_values_that_no_index_takes_are_written_out(value: Any, shown: Any) -> None:
    assert to_metadata(_text(metadata={"term": value}))["term"] == shown


def test_long_terms_are_cut() -> None:
    assert len(to_metadata(_text(source="x" * 40_000))["source"]) == 8000


@given(st.dictionaries(_names, _values, max_size=8), st.floats(0, 1))
def test_every_record_is_json(metadata: dict[str, Any], score: float) -> None:
    record = to_record(_text(metadata=metadata, score=score, claimed_label="toxic"), _QUESTION, _LABELS)
    assert json.loads(json.dumps(record, allow_nan=False)) == record
