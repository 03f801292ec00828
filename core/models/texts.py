"""The texts, which are the upload queue, and their near duplicates."""

from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from core.models.base import Base, one_of


class TextStatus(StrEnum):
    """How far a text has come on its way to the annotators. The rows of `texts` are the upload queue."""

    PENDING = "pending"  # inserted by the ingestion API; or put back: lease run out, outage, retry
    UPLOADING = "uploading"  # claimed by an uploader until `lease_until`
    UPLOADED = "uploaded"  # confirmed: annotators can find the record in Argilla
    FAILED = "failed"  # refused by Argilla for what it is; `last_error` says why
    FORGOTTEN = "forgotten"  # emptied on request; the row keeps its id, so that the text is not stored again
    # a near duplicate of a text that annotators get, in a dataset with near_duplicates = "ask_once";
    # pending again when that twin fails, or the setting changes
    NEAR_DUPLICATE = "near_duplicate"
    DEMO = "demo"  # made by `annotate demo-data`, with answers; never in Argilla, so no uploader touches it


class Text(Base):
    """One item to be labelled, with its place in the upload queue.

    There is no foreign key to `datasets`: the ingestion API checks names against the settings, and a check by
    trigger would cost a third of the bulk speed.
    """

    __tablename__ = "texts"

    id: Mapped[UUID] = mapped_column(primary_key=True, comment="core.text_identity.text_id(dataset, text)")
    sequence: Mapped[int] = mapped_column(sa.BigInteger, sa.Identity(), comment="receive order")
    dataset: Mapped[str]
    text: Mapped[str]
    claimed_label: Mapped[str | None]
    score: Mapped[float | None] = mapped_column(sa.Float(53))
    model_score: Mapped[float | None] = mapped_column(
        sa.Float(53),
        comment="the active model's, 0.5 to 1: 0.5 when its two best labels are equally likely",
    )
    source: Mapped[str | None]
    external_id: Mapped[str | None]
    # "metadata" is taken by SQLAlchemy in declarative classes
    metadata_: Mapped[dict[str, Any]] = mapped_column("metadata", JSONB, server_default=sa.text("'{}'"))
    enrichment: Mapped[dict[str, Any]] = mapped_column(
        server_default=sa.text("'{}'"), comment="what was found at intake: language, redacted (counts)"
    )
    received_at: Mapped[datetime] = mapped_column(server_default=sa.text("now()"))
    status: Mapped[TextStatus] = mapped_column(one_of(TextStatus), server_default=TextStatus.PENDING)
    attempts: Mapped[int] = mapped_column(server_default="0", comment="pushes that Argilla answered")
    retry_at: Mapped[datetime | None] = mapped_column(comment="not to be claimed before")
    lease_owner: Mapped[UUID | None] = mapped_column(comment="the claim that holds it: fences late finishers")
    lease_until: Mapped[datetime | None]
    uploaded_at: Mapped[datetime | None]
    completed_at: Mapped[datetime | None] = mapped_column(
        comment="since when it has as many submitted annotations as its dataset wants"
    )
    page_position: Mapped[int | None] = mapped_column(
        sa.BigInteger,
        comment="where its record stands in Argilla's page; null: not sent yet, or failed since",
    )
    gold_label: Mapped[str | None] = mapped_column(comment="the known answer of a gold text")
    adjudicates: Mapped[UUID | None] = mapped_column(
        comment="the disputed text that this one puts before adjudicators"
    )
    last_error: Mapped[str | None]

    __table_args__ = (
        sa.CheckConstraint("score between 0 and 1", name="score_range"),
        sa.Index("ix_texts_pending", "dataset", "sequence", postgresql_where=sa.text("status = 'pending'")),
        sa.Index("ix_texts_uploading", "lease_until", postgresql_where=sa.text("status = 'uploading'")),
        # Records before annotators that want more answers.
        sa.Index(
            "ix_texts_open",
            "dataset",
            postgresql_where=sa.text("status in ('uploading', 'uploaded') and completed_at is null"),
        ),
        sa.Index(
            "ix_texts_most_uncertain",
            "dataset",
            sa.text("abs(coalesce(score, model_score) - 0.5)"),
            "sequence",
            postgresql_where=sa.text("status = 'pending' and coalesce(score, model_score) is not null"),
        ),
        # Sent before, to be sent again.
        sa.Index(
            "ix_texts_returning",
            "dataset",
            "page_position",
            postgresql_where=sa.text("status = 'pending' and page_position is not null"),
        ),
        sa.Index(
            "ix_texts_gold", "dataset", "status", "sequence", postgresql_where=sa.text("gold_label is not null")
        ),
        sa.Index("ix_texts_adjudicates", "adjudicates", postgresql_where=sa.text("adjudicates is not null")),
        sa.Index("ix_texts_uploaded", "dataset", "id", postgresql_where=sa.text("status = 'uploaded'")),
        sa.Index("ix_texts_failed", "dataset", "sequence", postgresql_where=sa.text("status = 'failed'")),
        sa.Index(
            "ix_texts_near_duplicate", "dataset", "sequence", postgresql_where=sa.text("status = 'near_duplicate'")
        ),
    )


class NearDuplicateBand(Base):
    """One band of a text's MinHash signature: texts that share one may be near twins."""

    __tablename__ = "near_duplicate_bands"

    band: Mapped[int] = mapped_column(
        sa.BigInteger, primary_key=True, comment="hash of dataset, place of the band and its rows"
    )
    place: Mapped[int] = mapped_column(
        sa.BigInteger, sa.Identity(), primary_key=True, comment="order in which texts were stored"
    )
    text_id: Mapped[UUID]


class NearDuplicate(Base):
    """Two texts of a dataset that are nearly the same."""

    __tablename__ = "near_duplicates"

    text_id: Mapped[UUID] = mapped_column(primary_key=True, comment="the one that was stored later")
    twin_id: Mapped[UUID] = mapped_column(primary_key=True)
    similarity: Mapped[float] = mapped_column(sa.Float(53), comment="Jaccard similarity of their shingles")

    __table_args__ = (sa.Index("ix_near_duplicates_twin_id", "twin_id"),)
