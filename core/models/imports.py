"""Imports: long files on their way into `texts`."""

from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Mapped, mapped_column

from core.models.base import Base, one_of


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
