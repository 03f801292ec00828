"""Takes over what Argilla holds: annotations, and the labels that follow from them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, select, text, tuple_
from sqlalchemy.dialects.postgresql import insert

from core.change_feed import CHANNEL
from core.label_rule import Outcome, majority
from core.models import Annotation, AnnotationStatus, Label, LabelStatus, Text, TextStatus


@dataclass(frozen=True, slots=True)
class Response:
    """One annotator's answer as Argilla shows it."""

    text_id: UUID
    response_id: UUID
    annotator_id: UUID
    annotator: str
    status: AnnotationStatus
    value: str | None
    answers: dict[str, Any]
    created_at: datetime
    updated_at: datetime


def replace_annotations(
    connection: Connection, dataset: str, read_at: datetime, responses: dict[UUID, list[Response]]
) -> list[UUID]:
    """Make what we hold for these texts equal to a complete read of Argilla that began at `read_at`.

    `responses` holds for each text read all of its responses, an empty list where there are none. What is
    absent there was deleted, and is withdrawn here, unless it was seen by a later read. A failed text has no
    record any more: what was read of it before is too old. Runs in the caller's transaction. Returns the texts
    whose annotations changed.
    """
    held = _annotations_of(connection, responses)
    changed = [id_ for id_ in responses if _differs(held.get(id_, []), responses[id_], read_at)]
    if not changed:
        return []
    changed = _lock(connection, changed)
    held = _annotations_of(connection, changed)
    _upsert(connection, read_at, [r for id_ in changed for r in responses[id_]])
    _withdraw(
        connection,
        read_at,
        [
            (id_, row.response_id)
            for id_ in changed
            for row in held.get(id_, [])
            if row.response_id not in {r.response_id for r in responses[id_]}
        ],
    )
    update_labels(connection, dataset, changed)
    return changed


def update_labels(connection: Connection, dataset: str, text_ids: Sequence[UUID]) -> None:
    """Derive the labels of these texts anew and put them into the change feed; their rows must be locked."""
    annotations = _annotations_of(connection, text_ids)
    outcomes = {id_: _outcome(annotations.get(id_, [])) for id_ in text_ids}
    labelled = set(connection.scalars(select(Label.text_id).where(Label.text_id.in_(text_ids))))
    # A text that never had a label needs no tombstone.
    rows = [
        _label_row(id_, dataset, outcome)
        for id_, outcome in outcomes.items()
        if outcome.annotations or id_ in labelled
    ]
    if rows:
        _upsert_labels(connection, rows)
        connection.execute(text("select pg_notify(:channel, '')"), {"channel": CHANNEL})


def _annotations_of(connection: Connection, text_ids: Iterable[UUID]) -> dict[UUID, list[Any]]:
    rows = connection.execute(select(Annotation.__table__).where(Annotation.text_id.in_(list(text_ids))))
    by_text: dict[UUID, list[Any]] = {}
    for row in rows:
        by_text.setdefault(row.text_id, []).append(row)
    return by_text


def _differs(held: list[Any], read: list[Response], read_at: datetime) -> bool:
    """Whether a read shows anything that we do not hold, or lacks what we hold."""
    known = {row.response_id: row for row in held}
    for response in read:
        row = known.pop(response.response_id, None)
        if row is None or row.withdrawn_at is not None:
            return True
        if (row.status, row.value, row.updated_at, row.annotator) != (
            response.status,
            response.value,
            response.updated_at,
            response.annotator,
        ):
            return True
    return any(row.withdrawn_at is None and row.seen_at < read_at for row in known.values())


def _lock(connection: Connection, text_ids: list[UUID]) -> list[UUID]:
    """Lock the texts; return those that take annotations."""
    # In order of id, so that two writers cannot block each other.
    statement = select(Text.id, Text.status).where(Text.id.in_(text_ids)).order_by(Text.id)
    rows = connection.execute(statement.with_for_update(key_share=True)).all()
    return [row.id for row in rows if row.status != TextStatus.FAILED]


def _upsert(connection: Connection, read_at: datetime, responses: list[Response]) -> None:
    if not responses:
        return
    rows = [
        {field: getattr(r, field) for field in Response.__dataclass_fields__}
        | {"seen_at": read_at, "withdrawn_at": None}
        for r in responses
    ]
    statement = insert(Annotation).values(rows)
    keys = {"text_id", "response_id"}
    new = {name: statement.excluded[name] for name in rows[0] if name not in keys}
    connection.execute(
        statement.on_conflict_do_update(
            index_elements=sorted(keys, reverse=True),
            set_=new,
            # A later read has already said more.
            where=Annotation.seen_at <= statement.excluded.seen_at,
        )
    )


def _withdraw(connection: Connection, read_at: datetime, keys: list[tuple[UUID, UUID]]) -> None:
    table = Annotation.__table__
    connection.execute(
        table.update()  # type: ignore[attr-defined]
        .where(
            # By the whole key: the response's id alone has no index.
            tuple_(table.c.text_id, table.c.response_id).in_(keys),
            table.c.withdrawn_at.is_(None),
            table.c.seen_at < read_at,
        )
        .values(withdrawn_at=read_at, seen_at=read_at)
    )


def _outcome(annotations: list[Any]) -> Outcome:
    return majority(
        row.value
        for row in annotations
        if row.withdrawn_at is None and row.status == AnnotationStatus.SUBMITTED and row.value is not None
    )


def _label_row(text_id: UUID, dataset: str, outcome: Outcome) -> dict[str, Any]:
    return {
        "text_id": text_id,
        "dataset": dataset,
        "label": outcome.label,
        "status": outcome.status,
        "agreement": outcome.agreement,
        "votes": outcome.votes,
        "annotations": outcome.annotations,
    }


def _upsert_labels(connection: Connection, rows: list[dict[str, Any]]) -> None:
    clock = text("clock_timestamp()")
    statement = insert(Label).values([row | {"labelled_at": clock} for row in rows])
    excluded = statement.excluded
    new = {name: excluded[name] for name in ("label", "status", "agreement", "votes", "annotations")}
    connection.execute(
        statement.on_conflict_do_update(
            index_elements=["text_id"],
            set_=new
            | {
                # Edits keep the time, so that a walk by time shows each text once.
                "labelled_at": text(
                    f"case when labels.status = '{LabelStatus.WITHDRAWN}' "
                    "then excluded.labelled_at else labels.labelled_at end"
                ),
                "changed_xid": text("pg_current_xact_id()"),
            },
        )
    )
