"""API keys, the audit log, forget requests, and what the uploader remembers of datasets and Argilla."""

from datetime import datetime
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.orm import Mapped, mapped_column

from core.models.base import Base, Xid8


class ApiKey(Base):
    """A key for the APIs; only its hash is kept."""

    __tablename__ = "api_keys"

    id: Mapped[UUID] = mapped_column(primary_key=True, server_default=sa.text("gen_random_uuid()"))
    name: Mapped[str]
    hash: Mapped[bytes] = mapped_column(unique=True, comment="SHA-256 of the key")
    scopes: Mapped[list[str]] = mapped_column(ARRAY(sa.Text))
    requests_per_second: Mapped[float | None] = mapped_column(comment="to each process; null: as the settings say")
    burst: Mapped[int | None] = mapped_column(comment="requests at once; null: those of one second")
    datasets: Mapped[list[str] | None] = mapped_column(ARRAY(sa.Text), comment="that it may use; null: all")
    created_at: Mapped[datetime] = mapped_column(server_default=sa.text("now()"))
    withdrawn_at: Mapped[datetime | None]


class AuditEntry(Base):
    """One thing that an administrator did. Rows are only ever added; no text and no secret is in them."""

    __tablename__ = "audit_log"

    id: Mapped[int] = mapped_column(sa.BigInteger, sa.Identity(), primary_key=True)
    at: Mapped[datetime] = mapped_column(server_default=sa.text("now()"))
    program: Mapped[str] = mapped_column(comment="cli, ingestion_api or uploader")
    actor_kind: Mapped[str] = mapped_column(comment="key, account (of the operating system), program or nobody")
    actor: Mapped[str] = mapped_column(comment="the key's id and name, the account's or the program's name")
    action: Mapped[str] = mapped_column(comment="what was done, see core.audit")
    object_ids: Mapped[list[str]] = mapped_column(ARRAY(sa.Text), comment="the first hundred that it was done to")
    objects: Mapped[int] = mapped_column(sa.BigInteger, comment="how many it was done to")
    outcome: Mapped[str] = mapped_column(comment="done or failed")
    details: Mapped[dict[str, Any]] = mapped_column(JSONB, comment="names of datasets, scopes, counts")

    __table_args__ = (sa.Index("ix_audit_log_at", "at"),)


class ForgetRequest(Base):
    """A text that was forgotten, and how far that has come. Nothing of the text is in it; its id is a hash."""

    __tablename__ = "forget_requests"

    text_id: Mapped[UUID] = mapped_column(primary_key=True)
    dataset: Mapped[str]
    copy_of: Mapped[UUID | None] = mapped_column(
        comment="the text that this one put before adjudicators; it has a request of its own"
    )
    requested_at: Mapped[datetime] = mapped_column(comment="when Postgres forgot it")
    requested_by: Mapped[str] = mapped_column(comment="who asked, as they said")
    imports_until: Mapped[int] = mapped_column(
        sa.BigInteger, comment="bodies of imports up to this sequence may hold it"
    )
    imports_at: Mapped[datetime | None] = mapped_column(comment="when none of these bodies was left")
    removed_at: Mapped[datetime | None] = mapped_column(comment="when Argilla was first seen without it")
    argilla_at: Mapped[datetime | None] = mapped_column(
        comment="when no upload could bring it back to Argilla any more"
    )
    argilla_note: Mapped[str | None] = mapped_column(comment="why Argilla still has a part of it; for people")
    was_labelled: Mapped[bool] = mapped_column(comment="whether replicas and snapshots may have held it")
    replica_at: Mapped[datetime | None] = mapped_column(comment="when the replica was first seen without a trace")
    snapshots_at: Mapped[datetime | None] = mapped_column(comment="when no snapshot was seen to hold it")
    lifted_at: Mapped[datetime | None] = mapped_column(comment="when the text was allowed to be sent again")

    __table_args__ = (
        sa.Index("ix_forget_requests_dataset", "dataset", postgresql_where=sa.text("argilla_at is null")),
    )


class DatasetRow(Base):
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


class AlertRow(Base):
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
