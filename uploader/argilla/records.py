"""Records and responses as Argilla's API has them."""

import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from core.datasets import PAGE_POSITION, Dataset, Question
from core.labels.annotations import Response
from core.models import AnnotationStatus

Record = dict[str, Any]  # as the API takes it

TEXT_FIELD = "text"
LABEL_QUESTION = "label"

# Longer terms are accepted, but not indexed: the record would be invisible.
MAX_TERM_CHARACTERS = 8000
_INT64 = range(-(2**63), 2**63)

# What Argilla takes for the name of a suggestion's agent: other characters are a 422.
_NOT_FOR_AGENTS = re.compile(r"[^a-zA-Z0-9_:./ -]")
_MAX_AGENT_CHARACTERS = 200


@dataclass(frozen=True, slots=True)
class PendingText:
    """A claimed text, with what annotators are shown of it."""

    id: UUID
    text: str
    claimed_label: str | None
    score: float | None
    source: str | None
    external_id: str | None
    metadata: Mapping[str, Any]
    enrichment: Mapping[str, Any]
    received_at: datetime
    attempts: int  # pushes that Argilla answered before
    page_position: int | None = None  # where it stands in Argilla's page


@dataclass(frozen=True, slots=True)
class Suggestion:
    """A label that annotators are shown, and who suggests it."""

    label: str
    score: float | None  # how sure the agent is, 0 to 1
    agent: str | None


def to_record(
    text: PendingText, question_id: UUID, labels: Collection[str], predicted: Suggestion | None = None
) -> Record:
    """Return the record of a text, with a suggestion: the claimed label if it is in `labels`, else `predicted`.

    Never with responses: they would overwrite the annotators' own.
    """
    return {
        "external_id": str(text.id),
        "fields": {TEXT_FIELD: text.text},
        "metadata": to_metadata(text),
        "suggestions": _suggestions(question_id, _claim(text, labels) or predicted),
    }


def to_metadata(text: PendingText) -> dict[str, Any]:
    """Return the record's metadata: what we know of the text, and the sender's metadata.

    The sender's terms that are named like ours get the prefix `metadata_`, as often as it takes.
    """
    ours: dict[str, Any] = {
        "source": text.source,
        "external_id": text.external_id,
        "received_at": text.received_at.isoformat(),
    }
    ours |= {PAGE_POSITION: text.page_position} | _found(text.enrichment)
    shown = {name: _value(value) for name, value in ours.items() if value is not None}
    taken = ours.keys() | text.metadata.keys()
    for name, value in text.metadata.items():
        shown[_free_name(name, taken) if name in ours else name] = _value(value)
    return shown


def _found(enrichment: Mapping[str, Any]) -> dict[str, Any]:
    """Return the results of the enrichment at intake: `language`, and numbers like `redacted_email`."""
    redacted = {f"redacted_{kind}": count for kind, count in enrichment.get("redacted", {}).items()}
    return ({"language": enrichment["language"]["code"]} if "language" in enrichment else {}) | redacted


def _free_name(name: str, taken: Collection[str]) -> str:
    while name in taken:
        name = f"metadata_{name}"
    return name


def _value(value: Any) -> str | int | float:
    """Return the value as something that every index takes."""
    if isinstance(value, str):
        return value[:MAX_TERM_CHARACTERS]
    if isinstance(value, float) or (isinstance(value, int) and not isinstance(value, bool) and value in _INT64):
        return value
    return json.dumps(value, ensure_ascii=False)[:MAX_TERM_CHARACTERS]


def _claim(text: PendingText, labels: Collection[str]) -> Suggestion | None:
    # A claim that the settings no longer know is no reason to refuse the text.
    if text.claimed_label is None or text.claimed_label not in labels:
        return None
    return Suggestion(text.claimed_label, text.score, to_agent(text.source))


def _suggestions(question_id: UUID, suggested: Suggestion | None) -> list[dict[str, Any]]:
    if suggested is None:
        return []
    suggestion = {
        "question_id": str(question_id),
        "value": suggested.label,
        "score": suggested.score,
        "agent": suggested.agent,
    }
    return [{key: value for key, value in suggestion.items() if value is not None}]


def to_agent(source: str | None) -> str | None:
    """Return the source as Argilla takes it for a suggestion's agent; None when nothing readable is left."""
    agent = _NOT_FOR_AGENTS.sub("_", source or "")[:_MAX_AGENT_CHARACTERS]
    return agent if re.search("[a-zA-Z0-9]", agent) else None


Json = dict[str, Any]


def to_response(text_id: UUID, raw: Json, usernames: Mapping[UUID, str]) -> Response:
    """Return a response of Argilla's; an annotator without a name is named by the id."""
    user_id = UUID(raw["user_id"])
    answers = {question: answer["value"] for question, answer in (raw["values"] or {}).items()}
    value = answers.get(LABEL_QUESTION)
    return Response(
        text_id=text_id,
        response_id=UUID(raw["id"]),
        annotator_id=user_id,
        annotator=usernames.get(user_id, str(user_id)),
        status=AnnotationStatus(raw["status"]),
        value=value if isinstance(value, str) else None,
        answers=answers,
        created_at=to_moment(raw["inserted_at"]),
        updated_at=to_moment(raw["updated_at"]),
    )


def blocks_record(raw: Json) -> bool:
    """Whether a response will make Argilla answer 500 to every upsert of its record: it has no values at all."""
    return raw["values"] is None


def to_moment(written: str) -> datetime:
    """Return a time of Argilla's, which writes UTC without saying so."""
    moment = datetime.fromisoformat(written)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class CarriedAnswer:
    """An annotation that is not in Argilla's present dataset."""

    text_id: UUID
    response_id: UUID
    annotator_id: UUID
    annotator: str
    status: AnnotationStatus
    value: str | None
    answers: Mapping[str, Any]  # by question, the label's among them


# The answers to restore for one text, by the present id of the user.
Answers = dict[UUID, CarriedAnswer]


def add_responses(record: Record, answers: Answers, definition: Dataset) -> Record:
    """Return the record with the answers, if there are any."""
    if not answers:
        return record
    responses = [_to_response(user_id, answer, definition) for user_id, answer in answers.items()]
    return record | {"responses": responses}


def _to_response(user_id: UUID, answer: CarriedAnswer, definition: Dataset) -> dict[str, Any]:
    # Never null: that would make Argilla answer 500 for the record ever after.
    values = {LABEL_QUESTION: {"value": answer.value}} if answer.value in definition.labels else {}
    for question in definition.questions:
        if _fits(answer.answers.get(question.name), question):
            values[question.name] = {"value": answer.answers[question.name]}
    return {"user_id": str(user_id), "status": answer.status, "values": values}


def _fits(value: Any, question: Question) -> bool:
    """Whether a question of the settings still takes this answer."""
    match question.type:
        case "text":
            return isinstance(value, str)
        case "rating":
            return value in question.ratings
        case "span":
            return isinstance(value, list) and {span["label"] for span in value} <= set(question.labels)
