"""Annotators' answers to three texts, as reads of Argilla show them."""

import uuid
from datetime import UTC, datetime, timedelta
from uuid import UUID

import sqlalchemy as sa
from hypothesis import strategies as st

from core.datasets import Dataset
from core.labels.annotations import Response, replace_annotations
from core.models import AnnotationStatus, Label
from core.text_identity import text_id

DATASETS = {"toxicity": Dataset(labels=("toxic", "non_toxic"), guidelines="x", answers_wanted=2, dispute_extra=1)}
START = datetime(2026, 1, 1, tzinfo=UTC)
TEXTS = [text_id("toxicity", f"text {n}") for n in range(3)]
ANNOTATORS = [uuid.uuid5(uuid.NAMESPACE_DNS, f"annotator {n}") for n in range(3)]

ANSWERS = st.dictionaries(
    st.tuples(st.integers(0, 2), st.integers(0, 2)),
    st.tuples(st.sampled_from(["toxic", "non_toxic"]), st.sampled_from(["submitted", "draft", "discarded"])),
)


def answer(
    text: UUID, annotator: int, value: str | None, status: str = "submitted", updated: int = 0, number: int = 0
) -> Response:
    """One response; `number` distinguishes a re-created one from the deleted one."""
    return Response(
        text_id=text,
        response_id=uuid.uuid5(text, f"{annotator}/{number}"),
        annotator_id=ANNOTATORS[annotator],
        annotator=f"annotator {annotator}",
        status=AnnotationStatus(status),
        value=value,
        answers={"label": {"value": value}} if value else {},
        created_at=START,
        updated_at=START + timedelta(seconds=updated),
    )


def sweep(
    engine: sa.Engine,
    minute: int,
    *responses: Response,
    texts: list[UUID] = TEXTS,
    argilla_dataset_id: UUID | None = None,
) -> int:
    held: dict[UUID, list[Response]] = {id_: [] for id_ in texts}
    for response in responses:
        held[response.text_id].append(response)
    with engine.begin() as connection:
        read_at = START + timedelta(minutes=minute)
        return len(replace_annotations(connection, DATASETS, "toxicity", read_at, held, argilla_dataset_id))


def label_of(engine: sa.Engine, text: UUID) -> sa.RowMapping | None:
    with engine.connect() as connection:
        query = sa.select(Label.__table__).where(Label.text_id == text)
        return connection.execute(query).mappings().one_or_none()
