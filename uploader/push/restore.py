"""Restores annotators' answers with the records of a dataset that is new in Argilla.

An upsert with responses overwrites what the annotator has there: so only records that Argilla does not have yet
carry any. See docs/decisions/0020-healing.md.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import structlog

from core.datasets import Dataset, Question
from core.models import AnnotationStatus
from uploader import metrics
from uploader.argilla.client import Argilla
from uploader.argilla.errors import Refused
from uploader.argilla.records import LABEL_QUESTION, PendingText, Record
from uploader.dataset import DatasetState
from uploader.push import repository

log = structlog.get_logger()


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
Answers = Mapping[UUID, CarriedAnswer]


async def list_answers(
    state: DatasetState, argilla_dataset_id: UUID, texts: Sequence[PendingText]
) -> dict[UUID, dict[UUID, CarriedAnswer]]:
    """Return the answers to restore with the records of these texts, by text and user.

    Those of annotators whom Argilla does not know stay with us, and count.

    Raises:
        ArgillaError: Argilla cannot list its users.
    """
    ids = [text.id for text in texts if text.attempts]
    if not ids:
        return {}  # they were never uploaded
    async with state.engine.connect() as connection:
        rows = await repository.list_carried(connection, argilla_dataset_id, ids)
    carried = [CarriedAnswer(*row) for row in rows]
    if not carried:
        return {}
    answers = assign(carried, await state.argilla.list_usernames(), state.labels)
    kept = len(carried) - sum(map(len, answers.values()))
    if kept:
        log.warning("healing.answers_kept", dataset=state.name, answers=kept, reason="annotator or label unknown")
    metrics.KEPT_ANSWERS.labels(state.name).inc(kept)
    return answers


def assign(
    carried: Iterable[CarriedAnswer], users: Mapping[UUID, str], labels: Collection[str]
) -> dict[UUID, dict[UUID, CarriedAnswer]]:
    """Return the answers by text and present user: the user with the annotator's id, or else with the name.

    Of several answers of one user the last one is taken.
    """
    ids = {name: id_ for id_, name in users.items()}
    answers: dict[UUID, dict[UUID, CarriedAnswer]] = {}
    for answer in carried:
        user_id = answer.annotator_id if answer.annotator_id in users else ids.get(answer.annotator)
        # Argilla takes a submitted answer only with one of the dataset's labels; drafts may be empty.
        fits = answer.value in labels or answer.status != AnnotationStatus.SUBMITTED
        if user_id is not None and fits:
            answers.setdefault(answer.text_id, {})[user_id] = answer
    return answers


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


async def put_with_responses(
    argilla: Argilla, dataset: str, dataset_id: UUID, records: Sequence[Record]
) -> set[str]:
    """Upsert records; those that Argilla has already go without responses. Return the ids that went with them.

    Raises:
        ArgillaError: as of any upsert; a refusal is never about responses.
    """
    stored = await argilla.find_stored(dataset_id, [record["external_id"] for record in records])
    sent = [_without_responses(r) if r["external_id"] in stored else r for r in records]
    while True:
        try:
            await argilla.put_records(dataset_id, sent)
        except Refused as refusal:
            blamed = {i for i in refusal.by_position if i < len(sent) and "responses" in sent[i]}
            if not blamed:
                raise
            # For example a user who was deleted just now: the text must not fail because of that.
            metrics.REFUSED_REPAIRS.labels(dataset, "answers").inc(len(blamed))
            log.warning(
                "repair.refused", dataset=dataset, records=len(blamed), reason="Argilla refuses the answers"
            )
            sent = [_without_responses(r) if i in blamed else r for i, r in enumerate(sent)]
            continue
        return {record["external_id"] for record in sent if "responses" in record}


def _without_responses(record: Record) -> Record:
    return {name: value for name, value in record.items() if name != "responses"}
