"""Forgetting: texts that are emptied on request, and what is still to be done about them"""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

_FORMER_JOBS, _JOBS = "push, pull, sweep, heal or rule", "push, pull, sweep, heal, rule or forget"
_OLD_STATUSES = "'pending', 'uploading', 'uploaded', 'failed', 'near_duplicate'"


def upgrade() -> None:
    """Apply."""
    op.drop_constraint(op.f("ck_texts_status"), "texts")
    op.create_check_constraint(op.f("ck_texts_status"), "texts", f"status in ({_OLD_STATUSES}, 'forgotten')")
    moment = sa.DateTime(timezone=True)
    op.create_table(
        "forget_requests",
        sa.Column("text_id", sa.Uuid(), nullable=False),
        sa.Column("dataset", sa.Text(), nullable=False),
        sa.Column(
            "copy_of",
            sa.Uuid(),
            comment="the text that this one put before adjudicators; it has a request of its own",
        ),
        sa.Column("requested_at", moment, nullable=False, comment="when Postgres forgot it"),
        sa.Column("requested_by", sa.Text(), nullable=False, comment="who asked, as they said"),
        sa.Column(
            "imports_until",
            sa.BigInteger(),
            nullable=False,
            comment="bodies of imports up to this sequence may hold it",
        ),
        sa.Column("imports_at", moment, comment="when none of these bodies was left"),
        sa.Column("removed_at", moment, comment="when Argilla was first seen without it"),
        sa.Column("argilla_at", moment, comment="when no upload could bring it back to Argilla any more"),
        sa.Column("argilla_note", sa.Text(), comment="why Argilla still has a part of it; for people"),
        sa.Column(
            "was_labelled", sa.Boolean(), nullable=False, comment="whether replicas and snapshots may have held it"
        ),
        sa.Column("replica_at", moment, comment="when the replica was first seen without a trace"),
        sa.Column("snapshots_at", moment, comment="when no snapshot was seen to hold it"),
        sa.Column("lifted_at", moment, comment="when the text was allowed to be sent again"),
        sa.PrimaryKeyConstraint("text_id", name=op.f("pk_forget_requests")),
    )
    op.create_index(
        "ix_forget_requests_dataset",
        "forget_requests",
        ["dataset"],
        postgresql_where=sa.text("argilla_at is null"),
    )
    op.alter_column("alerts", "job", comment=_JOBS, existing_comment=_FORMER_JOBS)


def downgrade() -> None:
    """Take back; what was forgotten may be sent again."""
    op.alter_column("alerts", "job", comment=_FORMER_JOBS, existing_comment=_JOBS)
    op.drop_table("forget_requests")
    op.execute("delete from texts where status = 'forgotten'")
    op.drop_constraint(op.f("ck_texts_status"), "texts")
    op.create_check_constraint(op.f("ck_texts_status"), "texts", f"status in ({_OLD_STATUSES})")
