"""The texts, which are the upload queue, their near duplicates, and the imports that bring them."""

from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
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


# Of a text that annotators are asked for, or soon will be.
ASKED = ("pending", "uploading", "uploaded")


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
        # Sent records that need more answers.
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


def near_duplicates_lock(dataset: str) -> str:
    """Return the SQL that locks a dataset's near duplicates until the transaction ends; `dataset` is SQL, too.

    Take it before looking for the twins of new texts, and before marking a text as failed. Then no twin that is
    stored at the same time is overlooked, and none waits for a text that has just failed. Take it with a separate
    statement: only the next statement sees the rows that were stored before.
    """
    return f"pg_advisory_xact_lock(hashtextextended('near_duplicates ' || {dataset}, 0))"


class ImportState(StrEnum):
    """How far an import has come."""

    RECEIVING = "receiving"  # made; its body arrives, in one request or in several
    WAITING = "waiting"  # the whole body is stored; or put back: process stopped, outage
    RUNNING = "running"  # claimed by an ingestion process until `lease_until`
    DONE = "done"  # every row was stored or rejected
    FAILED = "failed"  # the body cannot be read on, was never completed, or kills whoever reads it; see `problem`
    DELETED = "deleted"  # by a client: hidden, and its rows go soon


class Import(Base):
    """A long file on its way into `texts`, with its place in the queue of imports."""

    __tablename__ = "imports"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    sequence: Mapped[int] = mapped_column(sa.BigInteger, sa.Identity(), unique=True, comment="order of creation")
    client: Mapped[str | None] = mapped_column(comment="who made it: the id of an API key, or an address")
    state: Mapped[ImportState] = mapped_column(one_of(ImportState, "state"), server_default=ImportState.RECEIVING)
    media_type: Mapped[str]
    encoding: Mapped[str]
    # Not jsonb, which cannot hold NUL characters: clients send them.
    parameters: Mapped[dict[str, Any]] = mapped_column(sa.JSON, comment="of the request, as for POST /texts/bulk")
    datasets: Mapped[list[str] | None] = mapped_column(
        ARRAY(sa.Text), comment="that its rows may name, as the sender's key; null: all"
    )
    upload_length: Mapped[int | None] = mapped_column(sa.BigInteger, comment="bytes of the body; null: not known")
    upload_offset: Mapped[int] = mapped_column(
        sa.BigInteger, server_default="0", comment="bytes of the body in import_chunks"
    )
    has_body: Mapped[bool] = mapped_column(server_default=sa.true(), comment="import_chunks may hold rows of it")
    bytes_read: Mapped[int] = mapped_column(sa.BigInteger, server_default="0")
    last_row: Mapped[int] = mapped_column(sa.BigInteger, server_default="0", comment="rows up to it are counted")
    received: Mapped[int] = mapped_column(sa.BigInteger, server_default="0")
    accepted: Mapped[int] = mapped_column(sa.BigInteger, server_default="0")
    duplicates: Mapped[int] = mapped_column(sa.BigInteger, server_default="0")
    rejected: Mapped[int] = mapped_column(sa.BigInteger, server_default="0")
    rejects_kept: Mapped[int] = mapped_column(
        sa.BigInteger, server_default="0", comment="rejected rows in import_rejects: the first ones"
    )
    reject_bytes: Mapped[int] = mapped_column(
        sa.BigInteger, server_default="0", comment="length of these rows together"
    )
    problem: Mapped[dict[str, Any] | None] = mapped_column(sa.JSON, comment="why it failed, as RFC 9457 says it")
    crashes: Mapped[int] = mapped_column(
        server_default="0", comment="claims that ended badly since the last batch"
    )
    lease_owner: Mapped[UUID | None] = mapped_column(comment="the claim that holds it: fences late finishers")
    lease_until: Mapped[datetime | None]
    created_at: Mapped[datetime] = mapped_column(server_default=sa.text("now()"))
    active_at: Mapped[datetime] = mapped_column(server_default=sa.text("now()"), comment="when bytes came last")
    received_at: Mapped[datetime | None] = mapped_column(comment="when the whole body was stored")
    started_at: Mapped[datetime | None] = mapped_column(comment="when it was claimed first")
    finished_at: Mapped[datetime | None]

    __table_args__ = (
        # Small: only imports that still need something done for them.
        sa.Index("ix_imports_open", "state", "sequence", postgresql_where=sa.text("has_body")),
        sa.Index("ix_imports_finished_at", "finished_at"),
        # For the turns of clients, and for what each of them has stored.
        sa.Index("ix_imports_client", "client", "started_at"),
    )


class ImportChunk(Base):
    """A piece of an import's body as it was sent. Stored uncompressed and out of line (see migration 0002)."""

    __tablename__ = "import_chunks"

    import_id: Mapped[UUID] = mapped_column(primary_key=True)
    offset: Mapped[int] = mapped_column(sa.BigInteger, primary_key=True, comment="of its first byte in the body")
    data: Mapped[bytes]


class ImportReject(Base):
    """A row of an import that was rejected."""

    __tablename__ = "import_rejects"

    import_id: Mapped[UUID] = mapped_column(primary_key=True)
    row: Mapped[int] = mapped_column(sa.BigInteger, primary_key=True, comment="from 1, as in the bulk answer")
    code: Mapped[str]
    detail: Mapped[str]
    fields: Mapped[Any | None] = mapped_column(sa.JSON, comment="the row as it was read; null: unreadable or big")
