"""First tables"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

from core.models import Xid8

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.create_table(
        "annotations",
        sa.Column("text_id", sa.Uuid(), nullable=False),
        sa.Column("response_id", sa.Uuid(), nullable=False, comment="Argilla's id; never used twice"),
        sa.Column("annotator_id", sa.Uuid(), nullable=False, comment="Argilla's id of the user"),
        sa.Column(
            "annotator", sa.Text(), nullable=False, comment="the user's name, also after the user was deleted"
        ),
        sa.Column(
            "status",
            sa.Enum(
                "submitted",
                "draft",
                "discarded",
                name="status",
                native_enum=False,
                create_constraint=True,
                length=16,
            ),
            nullable=False,
        ),
        sa.Column("value", sa.Text(), nullable=True, comment="the chosen label"),
        sa.Column(
            "answers",
            JSONB(),
            server_default=sa.text("'{}'"),
            nullable=False,
            comment="all answers by question, as Argilla holds them",
        ),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column(
            "updated_at",
            sa.DateTime(timezone=True),
            nullable=False,
            comment="Argilla's clock: orders events of one response",
        ),
        sa.Column(
            "seen_at",
            sa.DateTime(timezone=True),
            nullable=False,
            comment="when the read began that showed it last",
        ),
        sa.Column(
            "withdrawn_at",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="when it was found deleted in Argilla",
        ),
        sa.PrimaryKeyConstraint("text_id", "response_id", name=op.f("pk_annotations")),
    )
    op.create_table(
        "api_keys",
        sa.Column("id", sa.Uuid(), server_default=sa.text("gen_random_uuid()"), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("hash", sa.LargeBinary(), nullable=False, comment="SHA-256 of the key"),
        sa.Column("scopes", ARRAY(sa.Text()), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("withdrawn_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_api_keys")),
        sa.UniqueConstraint("hash", name=op.f("uq_api_keys_hash")),
    )
    op.create_table(
        "datasets",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("argilla_dataset_id", sa.Uuid(), nullable=True),
        sa.Column(
            "activity_seen_at",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="Argilla's last_activity_at when the last sweep began",
        ),
        sa.Column(
            "swept_at", sa.DateTime(timezone=True), nullable=True, comment="when the last complete sweep ended"
        ),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_datasets")),
    )
    op.create_table(
        "labels",
        sa.Column("text_id", sa.Uuid(), nullable=False),
        sa.Column("dataset", sa.Text(), nullable=False),
        sa.Column("label", sa.Text(), nullable=True),
        sa.Column(
            "status",
            sa.Enum(
                "labelled",
                "disputed",
                "withdrawn",
                name="status",
                native_enum=False,
                create_constraint=True,
                length=16,
            ),
            nullable=False,
        ),
        sa.Column("agreement", sa.Float(precision=53), nullable=True, comment="share of the most frequent label"),
        sa.Column("votes", JSONB(), nullable=False, comment="submitted annotations by label"),
        sa.Column("annotations", sa.Integer(), nullable=False, comment="submitted annotations"),
        sa.Column(
            "labelled_at",
            sa.DateTime(timezone=True),
            nullable=False,
            comment="when the first label was known; edits keep it",
        ),
        sa.Column("changed_xid", Xid8(), server_default=sa.text("pg_current_xact_id()"), nullable=False),
        sa.PrimaryKeyConstraint("text_id", name=op.f("pk_labels")),
    )
    op.create_index("ix_labels_changed_xid", "labels", ["changed_xid"], unique=False)
    op.create_table(
        "texts",
        sa.Column("id", sa.Uuid(), nullable=False, comment="core.text_identity.text_id(dataset, text)"),
        sa.Column("sequence", sa.BigInteger(), sa.Identity(always=False), nullable=False, comment="receive order"),
        sa.Column("dataset", sa.Text(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("claimed_label", sa.Text(), nullable=True),
        sa.Column("score", sa.Float(precision=53), nullable=True),
        sa.Column("source", sa.Text(), nullable=True),
        sa.Column("external_id", sa.Text(), nullable=True),
        sa.Column("metadata", JSONB(), server_default=sa.text("'{}'"), nullable=False),
        sa.Column("received_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column(
            "status",
            sa.Enum(
                "pending",
                "uploading",
                "uploaded",
                "failed",
                name="status",
                native_enum=False,
                create_constraint=True,
                length=16,
            ),
            server_default="pending",
            nullable=False,
        ),
        sa.Column(
            "attempts", sa.Integer(), server_default="0", nullable=False, comment="pushes that Argilla answered"
        ),
        sa.Column("retry_at", sa.DateTime(timezone=True), nullable=True, comment="not to be claimed before"),
        sa.Column(
            "lease_owner", sa.Uuid(), nullable=True, comment="the claim that holds it: fences late finishers"
        ),
        sa.Column("lease_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("uploaded_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("last_error", sa.Text(), nullable=True),
        sa.CheckConstraint("score between 0 and 1", name=op.f("ck_texts_score_range")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_texts")),
    )
    op.create_index(
        "ix_texts_failed",
        "texts",
        ["dataset", "sequence"],
        unique=False,
        postgresql_where=sa.text("status = 'failed'"),
    )
    op.create_index(
        "ix_texts_pending",
        "texts",
        ["dataset", "sequence"],
        unique=False,
        postgresql_where=sa.text("status = 'pending'"),
    )
    op.create_index(
        "ix_texts_uploaded",
        "texts",
        ["dataset", "id"],
        unique=False,
        postgresql_where=sa.text("status = 'uploaded'"),
    )
    op.create_index(
        "ix_texts_uploading",
        "texts",
        ["lease_until"],
        unique=False,
        postgresql_where=sa.text("status = 'uploading'"),
    )
    # Claims read the pending index from its start: entries of texts that moved on must go soon, also at 10 M rows.
    op.execute("alter table texts set (autovacuum_vacuum_scale_factor = 0.01)")


def downgrade() -> None:
    """Take back."""
    op.drop_table("texts")
    op.drop_table("labels")
    op.drop_table("datasets")
    op.drop_table("api_keys")
    op.drop_table("annotations")
