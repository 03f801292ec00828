"""Puts disputed texts before adjudicators: as texts of a second dataset, in a separate workspace.

See docs/decisions/0021-adjudication.md.
"""

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import aliased

from core.datasets import Dataset, adjudication_of
from core.labels.rules import Outcome
from core.models import Annotation, AnnotationStatus, Label, LabelStatus, Text, TextStatus
from core.text_identity import text_id

_MISSING_TEXTS = 500
_OUTCOME = (Label.text_id, Label.status, Label.label, Label.agreement, Label.votes, Label.annotations)
# No annotator is asked about these.
_NOT_ASKED = (TextStatus.FORGOTTEN, TextStatus.DEMO)


def list_decisions(connection: Connection, text_ids: Sequence[UUID]) -> dict[UUID, list[str]]:
    """Return what adjudicators have submitted about these texts."""
    copy = aliased(Text)
    statement = (
        select(copy.adjudicates, Annotation.value)
        .join(Annotation, Annotation.text_id == copy.id)
        .where(
            copy.adjudicates.in_(text_ids),
            Annotation.withdrawn_at.is_(None),
            Annotation.status == AnnotationStatus.SUBMITTED,
            Annotation.value.is_not(None),
        )
    )
    decisions: dict[UUID, list[str]] = {}
    for row in connection.execute(statement):
        decisions.setdefault(row.adjudicates, []).append(row.value)
    return decisions


def request_adjudication(
    connection: Connection, dataset: str, definition: Dataset, outcomes: Mapping[UUID, Outcome]
) -> None:
    """Queue the texts that are disputed by as many annotators as were asked for; those that were stay so."""
    disputed = [
        id_
        for id_, outcome in outcomes.items()
        if definition.dispute_extra
        and outcome.status == LabelStatus.DISPUTED
        and outcome.annotations >= definition.answers_wanted
    ]
    if not disputed:
        return
    _queue_copies(connection, dataset, {id_: outcomes[id_] for id_ in disputed})


def ask_again(connection: Connection, dataset: str, text_ids: Sequence[UUID]) -> list[UUID]:
    """Queue labelled texts as disputed ones are; return those that are not before adjudicators yet.

    Where adjudicators agree, their answer becomes the label.
    """
    labelled = select(*_OUTCOME).where(
        Label.text_id.in_(text_ids), Label.dataset == dataset, Label.status == LabelStatus.LABELLED
    )
    outcomes = {id_: Outcome(*values) for id_, *values in connection.execute(labelled)}
    return _queue_copies(connection, dataset, outcomes)


def _queue_copies(connection: Connection, dataset: str, outcomes: Mapping[UUID, Outcome]) -> list[UUID]:
    # Locked, if it is not yet: one that is forgotten meanwhile must leave no copy.
    query = select(Text.__table__).where(Text.id.in_(outcomes), Text.status.not_in(_NOT_ASKED))
    rows = connection.execute(query.order_by(Text.id).with_for_update(key_share=True)).all()
    if not rows:
        return []
    # -> pending: as a text of the adjudicators' dataset
    copies = [_copy(row, adjudication_of(dataset), outcomes[row.id]) for row in rows]
    statement = insert(Text).values(copies).on_conflict_do_nothing().returning(Text.adjudicates)
    return [id_ for id_ in connection.scalars(statement) if id_]


def request_missing(connection: Connection, dataset: str, definition: Dataset, after: UUID) -> UUID | None:
    """Queue up to 500 disputed texts that are not yet before adjudicators, by id.

    Returns the last one, to go on behind it; None when there are no more.
    """
    copy = aliased(Text)
    statement = (
        select(*_OUTCOME)
        .where(
            Label.dataset == dataset,
            Label.status == LabelStatus.DISPUTED,
            Label.text_id > after,
            ~select(copy.id).where(copy.adjudicates == Label.text_id).exists(),
        )
        .order_by(Label.text_id)
        .limit(_MISSING_TEXTS)
    )
    rows = connection.execute(statement).all()
    outcomes = {id_: Outcome(*values) for id_, *values in rows}
    request_adjudication(connection, dataset, definition, outcomes)
    return rows[-1].text_id if rows else None


def _copy(row: Any, dataset: str, outcome: Outcome) -> dict[str, Any]:
    """Without the claim, which should not sway who decides."""
    votes = ", ".join(f"{label}: {count}" for label, count in sorted(outcome.votes.items()))
    return {
        "id": text_id(dataset, row.text),
        "dataset": dataset,
        "text": row.text,
        "source": row.source,
        "external_id": row.external_id,
        "metadata": row.metadata | {"votes": votes},
        "adjudicates": row.id,
    }
