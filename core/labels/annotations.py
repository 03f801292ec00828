"""Stores annotations as Argilla has them, and derives the labels.

An annotation belongs to the dataset in Argilla in which it was last seen or restored. An annotation that belongs
to another dataset than the one that is read is *carried*: it counts until a read shows the same annotator's
answer. See docs/decisions/0020-healing.md.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, case, func, select, text, tuple_, update
from sqlalchemy.dialects.postgresql import insert

from core.datasets import Dataset, Datasets, LabelRule, adjudicated_by, get_definition
from core.labels.adjudication import list_decisions, request_adjudication
from core.labels.rules import Outcome, RuleInForce, adjudicate, load_parameters
from core.models import Annotation, AnnotationStatus, DatasetRow, Label, LabelStatus, Text, TextStatus
from core.models.labels import STAMP, wake_readers


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
    connection: Connection,
    datasets: Datasets,
    dataset: str,
    read_at: datetime,
    responses: dict[UUID, list[Response]],
    argilla_dataset_id: UUID | None = None,
) -> list[UUID]:
    """Make what we hold for these texts equal to a complete read of a dataset in Argilla that began at `read_at`.

    `responses` has all responses of each text that was read, or an empty list. An annotation without a response
    was deleted, and is withdrawn, unless a later read saw it, or it is carried. A failed or forgotten text has no
    record any more, so an earlier read of it is ignored. Runs in the caller's transaction. Returns the texts whose
    annotations changed.
    """
    held = _annotations_of(connection, responses)
    changed = [
        id_ for id_ in responses if _differs(held.get(id_, []), responses[id_], read_at, argilla_dataset_id)
    ]
    if not changed:
        return []
    changed = _lock(connection, changed)
    held = _annotations_of(connection, changed)
    absent = {id_: _absent(held.get(id_, []), responses[id_], argilla_dataset_id) for id_ in changed}
    read = [_keep_creation(r, absent[id_]) for id_ in changed for r in responses[id_]]
    _upsert(connection, read_at, argilla_dataset_id, read)
    _withdraw(connection, read_at, [(id_, row.response_id) for id_ in changed for row in absent[id_]])
    update_labels(connection, datasets, dataset, changed)
    return changed


def withdraw_annotations(
    connection: Connection, datasets: Datasets, dataset: str, read_at: datetime, text_ids: Sequence[UUID]
) -> None:
    """Withdraw all annotations of texts whose records were deleted, carried ones, too; the texts are locked."""
    held = _annotations_of(connection, text_ids)
    keys = [(id_, row.response_id) for id_, rows in held.items() for row in rows if row.withdrawn_at is None]
    if keys:
        _withdraw(connection, read_at, keys)
        update_labels(connection, datasets, dataset, list(held))


def update_labels(connection: Connection, datasets: Datasets, dataset: str, text_ids: Sequence[UUID]) -> None:
    """Derive the labels of these texts again and stamp them for the change feed. The texts must be locked.

    Answers of adjudicators change the label of the disputed text.
    """
    definition = get_definition(dataset, datasets)
    rule = _get_rule(connection, dataset, definition.label_rule)
    annotations = _annotations_of(connection, text_ids)
    decisions = list_decisions(connection, text_ids)
    outcomes = {
        id_: adjudicate(_outcome(rule, annotations.get(id_, [])), decisions.get(id_, [])) for id_ in text_ids
    }
    _store_labels(connection, dataset, outcomes)
    _complete(connection, definition, outcomes)
    request_adjudication(connection, dataset, definition, outcomes)
    if disputed_in := adjudicated_by(dataset):
        copies = select(Text.adjudicates).where(Text.id.in_(text_ids), Text.adjudicates.is_not(None))
        ids = [id_ for id_ in connection.scalars(copies) if id_]
        update_labels(connection, datasets, disputed_in, _lock(connection, ids))


def rewrite_labels(connection: Connection, datasets: Datasets, dataset: str, text_ids: Sequence[UUID]) -> None:
    """Derive the labels of these texts again after the label rule changed, also of failed texts."""
    rows = _lock_rows(connection, text_ids)
    update_labels(connection, datasets, dataset, [r.id for r in rows if r.status != TextStatus.FORGOTTEN])


def _get_rule(connection: Connection, dataset: str, rule: LabelRule) -> RuleInForce:
    """Return the rule with its estimate; as long as there is none, the majority decides."""
    if rule == LabelRule.MAJORITY:
        return RuleInForce()
    row = connection.execute(
        select(DatasetRow.rule_version, DatasetRow.rule_parameters).where(
            DatasetRow.name == dataset, DatasetRow.rule == rule
        )
    ).one_or_none()
    if row is None:
        return RuleInForce()
    return RuleInForce(rule, row.rule_version, load_parameters(row.rule_parameters))


def _store_labels(connection: Connection, dataset: str, outcomes: dict[UUID, Outcome]) -> None:
    labelled = set(connection.scalars(select(Label.text_id).where(Label.text_id.in_(outcomes))))
    # A text that never had a label needs no tombstone.
    rows = [
        _label_row(id_, dataset, outcome)
        for id_, outcome in outcomes.items()
        if outcome.annotations or id_ in labelled
    ]
    if rows:
        _upsert_labels(connection, rows)
        wake_readers(connection)


def _complete(connection: Connection, definition: Dataset, outcomes: dict[UUID, Outcome]) -> None:
    """Store since when texts are complete; an annotation that was withdrawn may end it."""
    complete = [id_ for id_, outcome in outcomes.items() if outcome.annotations >= definition.answers_wanted]
    is_complete = Text.id.in_(complete)
    changed = Text.completed_at.is_not(None) != is_complete
    since = case((is_complete, func.clock_timestamp()))
    connection.execute(update(Text).where(Text.id.in_(outcomes), changed).values(completed_at=since))


def _annotations_of(connection: Connection, text_ids: Iterable[UUID]) -> dict[UUID, list[Any]]:
    rows = connection.execute(select(Annotation.__table__).where(Annotation.text_id.in_(list(text_ids))))
    by_text: dict[UUID, list[Any]] = {}
    for row in rows:
        by_text.setdefault(row.text_id, []).append(row)
    return by_text


def _differs(held: list[Any], read: list[Response], read_at: datetime, argilla_dataset_id: UUID | None) -> bool:
    """Whether a read shows anything that we do not hold, or lacks what we hold."""
    known = {row.response_id: row for row in held}
    for response in read:
        row = known.get(response.response_id)
        if row is None or row.withdrawn_at is not None:
            return True
        if (row.status, row.value, row.updated_at, row.annotator, row.argilla_dataset_id) != (
            response.status,
            response.value,
            response.updated_at,
            response.annotator,
            argilla_dataset_id,
        ):
            return True
    return any(row.seen_at < read_at for row in _absent(held, read, argilla_dataset_id))


def _absent(held: list[Any], read: list[Response], argilla_dataset_id: UUID | None) -> list[Any]:
    """Return the annotations that a read shows to be no more: deleted there, or carried and answered there."""
    ids = {response.response_id for response in read}
    # A new Argilla may know the same person by another id.
    annotators = {r.annotator_id for r in read} | {r.annotator for r in read}
    return [
        row
        for row in held
        if row.withdrawn_at is None
        and row.response_id not in ids
        and (row.argilla_dataset_id == argilla_dataset_id or annotators & {row.annotator_id, row.annotator})
    ]


def _keep_creation(response: Response, absent: list[Any]) -> Response:
    """Return an answer that was given back with the time at which the annotator gave it first."""
    former = [
        row.created_at
        for row in absent
        if row.answers == response.answers
        and (row.annotator_id == response.annotator_id or row.annotator == response.annotator)
    ]
    return replace(response, created_at=min([response.created_at, *former]))


def _lock(connection: Connection, text_ids: Sequence[UUID]) -> list[UUID]:
    """Lock the texts; return those that take annotations."""
    closed = {TextStatus.FAILED, TextStatus.FORGOTTEN}
    return [row.id for row in _lock_rows(connection, text_ids) if row.status not in closed]


def _lock_rows(connection: Connection, text_ids: Sequence[UUID]) -> Sequence[Any]:
    # In order of id, so that two writers cannot block each other.
    statement = select(Text.id, Text.status).where(Text.id.in_(text_ids)).order_by(Text.id)
    return connection.execute(statement.with_for_update(key_share=True)).all()


def _upsert(
    connection: Connection, read_at: datetime, argilla_dataset_id: UUID | None, responses: list[Response]
) -> None:
    if not responses:
        return
    seen = {"seen_at": read_at, "withdrawn_at": None, "argilla_dataset_id": argilla_dataset_id}
    rows = [{field: getattr(r, field) for field in Response.__dataclass_fields__} | seen for r in responses]
    statement = insert(Annotation).values(rows)
    keys = {"text_id", "response_id"}
    # The time of creation stays as it was first stored: see _keep_creation.
    new = {name: statement.excluded[name] for name in rows[0] if name not in keys | {"created_at"}}
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


def _outcome(rule: RuleInForce, annotations: list[Any]) -> Outcome:
    return rule.label(
        [
            (row.annotator, row.value)
            for row in annotations
            if row.withdrawn_at is None and row.status == AnnotationStatus.SUBMITTED and row.value is not None
        ]
    )


def _label_row(text_id: UUID, dataset: str, outcome: Outcome) -> dict[str, Any]:
    return {"text_id": text_id, "dataset": dataset} | {
        name: getattr(outcome, name) for name in Outcome.__dataclass_fields__
    }


def _upsert_labels(connection: Connection, rows: list[dict[str, Any]]) -> None:
    clock = text("clock_timestamp()")
    statement = insert(Label).values([row | {"labelled_at": clock} for row in rows])
    excluded = statement.excluded
    new = {name: excluded[name] for name in rows[0] if name not in {"text_id", "dataset"}}
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
                "changed_xid": text(STAMP),
            },
        )
    )
