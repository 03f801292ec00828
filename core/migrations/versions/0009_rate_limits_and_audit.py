"""Rate limits of keys, and the log of what administrators did"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply; releases before this one neither read nor write what is new."""
    limit = sa.Column("requests_per_second", sa.Float(), comment="to each process; null: as the settings say")
    op.add_column("api_keys", limit)
    op.add_column(
        "api_keys", sa.Column("burst", sa.Integer(), comment="requests at once; null: those of one second")
    )
    op.create_table(
        "audit_log",
        sa.Column("id", sa.BigInteger(), sa.Identity(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("program", sa.Text(), nullable=False, comment="cli, ingestion_api or uploader"),
        sa.Column(
            "actor_kind",
            sa.Text(),
            nullable=False,
            comment="key, account (of the operating system), program or nobody",
        ),
        sa.Column(
            "actor",
            sa.Text(),
            nullable=False,
            comment="the key's id and name, the account's or the program's name",
        ),
        sa.Column("action", sa.Text(), nullable=False, comment="what was done, see core.audit"),
        sa.Column(
            "object_ids",
            postgresql.ARRAY(sa.Text()),
            nullable=False,
            comment="the first hundred that it was done to",
        ),
        sa.Column("objects", sa.BigInteger(), nullable=False, comment="how many it was done to"),
        sa.Column("outcome", sa.Text(), nullable=False, comment="done or failed"),
        sa.Column("details", postgresql.JSONB(), nullable=False, comment="names of datasets, scopes, counts"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit_log")),
    )
    op.create_index("ix_audit_log_at", "audit_log", ["at"])


def downgrade() -> None:
    """Take back."""
    op.drop_table("audit_log")
    op.drop_column("api_keys", "burst")
    op.drop_column("api_keys", "requests_per_second")
