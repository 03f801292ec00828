"""The tables. Every constraint has a name by convention, so that code may react to it."""

from datetime import datetime
from enum import StrEnum
from typing import Any, ClassVar
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.types import UserDefinedType

from core.datasets import LabelRule


class TextStatus(StrEnum):
    """How far a text has come on its way to the annotators. The rows of `texts` are the upload queue."""

    PENDING = "pending"  # inserted by the ingestion API; or put back: lease run out, outage, retry
    UPLOADING = "uploading"  # claimed by an uploader until `lease_until`
    UPLOADED = "uploaded"  # confirmed: annotators can find the record in Argilla
    FAILED = "failed"  # refused by Argilla for what it is; `last_error` says why
    FORGOTTEN = "forgotten"  # emptied on request; the row keeps its id, so that the text is not stored again
    # stored beside a near twin that annotators are asked for, in a dataset with near_duplicates = "ask_once";
    # pending again when that twin fails, or the setting changes
    NEAR_DUPLICATE = "near_duplicate"
    DEMO = "demo"  # made by `annotate demo-data`, with answers; never in Argilla, so no uploader touches it


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


class ImportState(StrEnum):
    """How far an import has come."""

    RECEIVING = "receiving"  # made; its body arrives, in one request or in several
    WAITING = "waiting"  # the whole body is stored; or put back: process stopped, outage
    RUNNING = "running"  # claimed by an ingestion process until `lease_until`
    DONE = "done"  # every row was stored or rejected
    FAILED = "failed"  # the body cannot be read on, was never completed, or kills whoever reads it; see `problem`
    DELETED = "deleted"  # by a client: hidden, and its rows go soon


class Xid8(UserDefinedType[int]):
    """Postgres' 64-bit transaction id, which does not wrap around."""

    cache_ok = True

    def get_col_spec(self, **_: Any) -> str:
        """Return the type's name in DDL."""
        return "xid8"


class Base(DeclarativeBase):
    """Base of all tables."""

    metadata = sa.MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "pk": "pk_%(table_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        }
    )
    type_annotation_map: ClassVar = {str: sa.Text, datetime: sa.DateTime(timezone=True), dict[str, Any]: JSONB}


def _status(values: type[StrEnum], name: str = "status") -> sa.Enum:
    return sa.Enum(
        values,
        name=name,
        native_enum=False,
        create_constraint=True,
        length=16,
        values_callable=lambda kind: [member.value for member in kind],
    )


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


class Alert(Base):
    """A job that stands still until somebody does something. The uploader that leads the dataset writes it."""

    __tablename__ = "alerts"

    dataset: Mapped[str] = mapped_column(primary_key=True)
    job: Mapped[str] = mapped_column(primary_key=True, comment="push, pull, sweep, heal, rule, forget or settings")
    code: Mapped[str]
    reason: Mapped[str] = mapped_column(comment="for people; says what to do")
    since: Mapped[datetime] = mapped_column(server_default=sa.text("now()"))


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
    source: Mapped[str | None]
    external_id: Mapped[str | None]
    # "metadata" is taken by SQLAlchemy in declarative classes
    metadata_: Mapped[dict[str, Any]] = mapped_column("metadata", JSONB, server_default=sa.text("'{}'"))
    enrichment: Mapped[dict[str, Any]] = mapped_column(
        server_default=sa.text("'{}'"), comment="what was found at intake: language, redacted (counts)"
    )
    received_at: Mapped[datetime] = mapped_column(server_default=sa.text("now()"))
    status: Mapped[TextStatus] = mapped_column(_status(TextStatus), server_default=TextStatus.PENDING)
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
            "ix_texts_uncertain",
            "dataset",
            sa.text("abs(score - 0.5)"),
            "sequence",
            postgresql_where=sa.text("status = 'pending' and score is not null"),
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


class Annotation(Base):
    """One annotator's answer about one text, as last seen in Argilla. A withdrawn one stays, as a tombstone."""

    __tablename__ = "annotations"

    text_id: Mapped[UUID] = mapped_column(primary_key=True)
    response_id: Mapped[UUID] = mapped_column(primary_key=True, comment="Argilla's id; never used twice")
    annotator_id: Mapped[UUID] = mapped_column(comment="Argilla's id of the user")
    annotator: Mapped[str] = mapped_column(comment="the user's name, also after the user was deleted")
    status: Mapped[AnnotationStatus] = mapped_column(_status(AnnotationStatus))
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


class Label(Base):
    """What the annotations of a text add up to. This table is the change feed: see core.change_feed."""

    __tablename__ = "labels"

    text_id: Mapped[UUID] = mapped_column(primary_key=True)
    dataset: Mapped[str]
    label: Mapped[str | None]
    status: Mapped[LabelStatus] = mapped_column(_status(LabelStatus))
    agreement: Mapped[float | None] = mapped_column(sa.Float(53), comment="share of the most frequent label")
    votes: Mapped[dict[str, Any]] = mapped_column(comment="submitted annotations by label")
    annotations: Mapped[int] = mapped_column(comment="submitted annotations")
    confidence: Mapped[float | None] = mapped_column(
        sa.Float(53), comment="probability of the label by the rule; of a majority, its agreement"
    )
    rule: Mapped[LabelRule] = mapped_column(_status(LabelRule, "rule"), server_default=LabelRule.MAJORITY)
    rule_version: Mapped[int] = mapped_column(
        server_default="1", comment="the estimate that it was derived by; a later one may say the same"
    )
    decided_by: Mapped[Decider] = mapped_column(_status(Decider, "decided_by"), server_default=Decider.ANNOTATORS)
    labelled_at: Mapped[datetime] = mapped_column(comment="when the first label was known; edits keep it")
    changed_xid: Mapped[int] = mapped_column(Xid8, server_default=sa.text("pg_current_xact_id()"))

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


class Webhook(Base):
    """A webhook that the uploader registered in Argilla."""

    __tablename__ = "webhooks"

    id: Mapped[UUID] = mapped_column(primary_key=True, comment="Argilla's id")
    secret: Mapped[str] = mapped_column(comment="Argilla signs its events with it")


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


class Import(Base):
    """A long file on its way into `texts`, with its place in the queue of imports."""

    __tablename__ = "imports"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    sequence: Mapped[int] = mapped_column(sa.BigInteger, sa.Identity(), unique=True, comment="order of creation")
    client: Mapped[str | None] = mapped_column(comment="who made it: the id of an API key, or an address")
    state: Mapped[ImportState] = mapped_column(_status(ImportState, "state"), server_default=ImportState.RECEIVING)
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
