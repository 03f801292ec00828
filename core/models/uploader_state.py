"""What the uploader remembers of each dataset and of Argilla."""

from datetime import datetime
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column

from core.models.base import Base, Xid8


class Dataset(Base):
    """What the programs remember of each dataset that the settings define."""

    __tablename__ = "datasets"

    name: Mapped[str] = mapped_column(primary_key=True)
    argilla_dataset_id: Mapped[UUID | None]
    argilla_dataset_at: Mapped[datetime | None] = mapped_column(
        comment="when that one was first used: what was uploaded before is not in it"
    )
    events_applied_at: Mapped[datetime | None] = mapped_column(
        comment="Argilla's time of the newest event that was applied"
    )
    activity_seen_at: Mapped[datetime | None] = mapped_column(
        comment="Argilla's last_activity_at when the last complete sweep began"
    )
    difference_seen: Mapped[dict[str, Any] | None] = mapped_column(
        comment="what Argilla counted otherwise than we when the last complete sweep began"
    )
    swept_at: Mapped[datetime | None] = mapped_column(comment="when the last complete sweep ended")
    leader_id: Mapped[UUID | None] = mapped_column(comment="the uploader that works on the dataset")
    leader_until: Mapped[datetime | None] = mapped_column(comment="when another uploader may take over")
    sweep_position: Mapped[UUID | None] = mapped_column(comment="how far the sweep under way has come, by id")
    sweep_activity_at: Mapped[datetime | None] = mapped_column(comment="last_activity_at when it began")
    sweep_difference: Mapped[dict[str, Any] | None] = mapped_column(comment="what was counted when it began")
    refill_position: Mapped[UUID | None] = mapped_column(
        comment="how far the texts of a lost Argilla dataset were put back into the queue, by id"
    )
    answers_wanted: Mapped[int | None] = mapped_column(comment="the number that texts.completed_at follows")
    completion_position: Mapped[UUID | None] = mapped_column(
        comment="how far texts.completed_at was put right after that number changed, by id"
    )
    gold_owed: Mapped[float] = mapped_column(
        sa.Float(53), server_default="0", comment="gold texts that the share asks for beyond those claimed"
    )
    uncertain_owed: Mapped[float] = mapped_column(
        sa.Float(53), server_default="0", comment="the same of uncertain texts, in mixed order"
    )
    settings: Mapped[dict[str, Any] | None] = mapped_column(
        comment="the definition that was last applied in Argilla"
    )
    settings_approved: Mapped[dict[str, Any] | None] = mapped_column(
        comment="a definition that asks annotators for less, and that an operator allowed"
    )
    rule: Mapped[str | None] = mapped_column(comment="the label rule that was estimated last")
    rule_version: Mapped[int] = mapped_column(server_default="0", comment="how often a label rule was estimated")
    rule_parameters: Mapped[dict[str, Any] | None] = mapped_column(comment="what was estimated, for new answers")
    rule_estimated_at: Mapped[datetime | None]
    rule_answers: Mapped[str | None] = mapped_column(comment="digest of the answers that it was estimated from")
    rule_seen_xid: Mapped[int | None] = mapped_column(
        Xid8, comment="labels that were changed before are as the rule says"
    )
    model_asked_at: Mapped[datetime | None] = mapped_column(
        comment="when an operator asked for a model to be trained; null once that was done"
    )


class Alert(Base):
    """A job that is blocked until an operator acts. The uploader that leads the dataset writes it."""

    __tablename__ = "alerts"

    dataset: Mapped[str] = mapped_column(primary_key=True)
    job: Mapped[str] = mapped_column(
        primary_key=True, comment="push, pull, sweep, heal, rule, model, forget or settings"
    )
    code: Mapped[str]
    reason: Mapped[str] = mapped_column(comment="for people; says what to do")
    since: Mapped[datetime] = mapped_column(server_default=sa.text("now()"))


class Webhook(Base):
    """A webhook that the uploader registered in Argilla."""

    __tablename__ = "webhooks"

    id: Mapped[UUID] = mapped_column(primary_key=True, comment="Argilla's id")
    secret: Mapped[str] = mapped_column(comment="Argilla signs its events with it")
