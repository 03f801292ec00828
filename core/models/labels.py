"""Annotations, the labels that follow from them, trained models and their predictions."""

from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Mapped, mapped_column

from core.datasets import LabelRule
from core.models.base import Base, Xid8, one_of


class AnnotationStatus(StrEnum):
    """What an annotator did with a record, in Argilla's words."""

    SUBMITTED = "submitted"  # counts
    DRAFT = "draft"  # saved, does not count
    DISCARDED = "discarded"  # the annotator passed; does not count


class LabelStatus(StrEnum):
    """What the annotations of a text add up to."""

    LABELLED = "labelled"  # most submitted annotations say the same
    DISPUTED = "disputed"  # a tie: no label
    WITHDRAWN = "withdrawn"  # no submitted annotation is left: a tombstone in the change feed


class Decider(StrEnum):
    """Whose answers a label follows from."""

    ANNOTATORS = "annotators"
    ADJUDICATORS = "adjudicators"  # a dispute was put before them, and they agree


class Annotation(Base):
    """One annotator's answer about one text, as last seen in Argilla. A withdrawn one stays, as a tombstone."""

    __tablename__ = "annotations"

    text_id: Mapped[UUID] = mapped_column(primary_key=True)
    response_id: Mapped[UUID] = mapped_column(primary_key=True, comment="Argilla's id; never used twice")
    annotator_id: Mapped[UUID] = mapped_column(comment="Argilla's id of the user")
    annotator: Mapped[str] = mapped_column(comment="the user's name, also after the user was deleted")
    status: Mapped[AnnotationStatus] = mapped_column(one_of(AnnotationStatus))
    value: Mapped[str | None] = mapped_column(comment="the chosen label")
    answers: Mapped[dict[str, Any]] = mapped_column(
        server_default=sa.text("'{}'"), comment="all answers by question, as Argilla holds them"
    )
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime] = mapped_column(comment="Argilla's clock: orders events of one response")
    seen_at: Mapped[datetime] = mapped_column(comment="when the read began that showed it last")
    withdrawn_at: Mapped[datetime | None] = mapped_column(comment="when it was found deleted in Argilla")
    argilla_dataset_id: Mapped[UUID | None] = mapped_column(
        comment="the dataset in Argilla that it was seen in last, or given back to"
    )


# The change feed: label rows in the order of the transactions that changed them.
#
# Every change to a label stamps its row with the id of its transaction. A reader takes the rows between its
# position and the oldest transaction that is still running: every transaction below has ended, so no row can
# appear there later. A reader that follows a sequence or a timestamp misses rows that commit late; this window
# misses none.
#
# Rows carry state, not differences; a label that is gone stays as a `withdrawn` row.

# Goes into every INSERT and UPDATE of a label.
STAMP = "pg_current_xact_id()"

# The end of a reader's window, from the same snapshot as the rows. For readers of several statements: use one
# REPEATABLE READ transaction, and this one first.
WINDOW_END = "pg_snapshot_xmin(pg_current_snapshot())"

# Wakes the readers; sent at most once a transaction, since NOTIFY takes a database-wide lock at commit.
LABELS_CHANNEL = "label_changes"


def wake_readers(connection: sa.Connection) -> None:
    """Notify the readers that labels changed, when the transaction commits."""
    connection.execute(sa.select(sa.func.pg_notify(LABELS_CHANNEL, "")))


class Label(Base):
    """What the annotations of a text add up to. This table is the change feed."""

    __tablename__ = "labels"

    text_id: Mapped[UUID] = mapped_column(primary_key=True)
    dataset: Mapped[str]
    label: Mapped[str | None]
    status: Mapped[LabelStatus] = mapped_column(one_of(LabelStatus))
    agreement: Mapped[float | None] = mapped_column(sa.Float(53), comment="share of the most frequent label")
    votes: Mapped[dict[str, Any]] = mapped_column(comment="submitted annotations by label")
    annotations: Mapped[int] = mapped_column(comment="submitted annotations")
    confidence: Mapped[float | None] = mapped_column(
        sa.Float(53), comment="probability of the label by the rule; of a majority, its agreement"
    )
    rule: Mapped[LabelRule] = mapped_column(one_of(LabelRule, "rule"), server_default=LabelRule.MAJORITY)
    rule_version: Mapped[int] = mapped_column(
        server_default="1", comment="the estimate that it was derived by; a later one may say the same"
    )
    decided_by: Mapped[Decider] = mapped_column(one_of(Decider, "decided_by"), server_default=Decider.ANNOTATORS)
    labelled_at: Mapped[datetime] = mapped_column(comment="when the first label was known; edits keep it")
    changed_xid: Mapped[int] = mapped_column(Xid8, server_default=sa.text(STAMP))

    __table_args__ = (sa.Index("ix_labels_changed_xid", "changed_xid"),)


# Wakes the uploader after an insert into `rereads`; the payload is the dataset.
REREADS_CHANNEL = "rereads"


class Reread(Base):
    """A text whose annotations changed in Argilla, as an event said: they are to be read again."""

    __tablename__ = "rereads"

    text_id: Mapped[UUID] = mapped_column(primary_key=True)
    dataset: Mapped[str]
    argilla_record_id: Mapped[UUID]
    event_at: Mapped[datetime] = mapped_column(comment="Argilla's time of the newest event")
    received_at: Mapped[datetime] = mapped_column(comment="when the first event came")
    stamp: Mapped[UUID] = mapped_column(comment="another one with each event: what was read before stays noted")

    __table_args__ = (sa.Index("ix_rereads_dataset_received_at", "dataset", "received_at"),)


class Model(Base):
    """A trained model. Its files are in the storage of the snapshots: see core.classifiers.model_files."""

    __tablename__ = "models"

    dataset: Mapped[str] = mapped_column(primary_key=True)
    version: Mapped[str] = mapped_column(primary_key=True, comment="12 hex digits of the hash of model.skops")
    created_at: Mapped[datetime]
    is_active: Mapped[bool] = mapped_column(server_default=sa.text("false"))
    activated_at: Mapped[datetime | None]
    decision: Mapped[str] = mapped_column(comment="whether it became active, and why; for people")
    manifest: Mapped[dict[str, Any]] = mapped_column(comment="core.classifiers.model_files.ModelManifest")

    __table_args__ = (sa.Index("ix_models_active", "dataset", unique=True, postgresql_where=sa.text("is_active")),)


class Prediction(Base):
    """The prediction of the active model for a text; for a text that it was trained on, an out-of-fold one."""

    __tablename__ = "predictions"

    text_id: Mapped[UUID] = mapped_column(primary_key=True)
    dataset: Mapped[str]
    model_version: Mapped[str]
    label: Mapped[str] = mapped_column(comment="the most probable one")
    probability: Mapped[float] = mapped_column(sa.Float(53), comment="of that label")
    probabilities: Mapped[list[float]] = mapped_column(
        ARRAY(sa.REAL), comment="of all labels, in the order of the model's manifest"
    )
    quality: Mapped[float | None] = mapped_column(
        sa.Float(53), comment="cleanlab's quality of the text's label, 0 to 1: low is suspect; null: no label"
    )
    quality_of: Mapped[str | None] = mapped_column(comment="the label that `quality` is about")

    __table_args__ = (sa.Index("ix_predictions_dataset", "dataset", "model_version"),)
