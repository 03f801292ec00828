"""What Argilla's responses say, in our words."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from core.annotations import Response
from core.models import AnnotationStatus
from uploader.records import LABEL_QUESTION

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
