"""Imports"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.create_table(
        "imports",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column(
            "sequence", sa.BigInteger(), sa.Identity(always=False), nullable=False, comment="order of creation"
        ),
        sa.Column(
            "state",
            sa.Enum(
                "receiving",
                "waiting",
                "running",
                "done",
                "failed",
                "deleted",
                name="state",
                native_enum=False,
                create_constraint=True,
                length=16,
            ),
            server_default="receiving",
            nullable=False,
        ),
        sa.Column("media_type", sa.Text(), nullable=False),
        sa.Column("encoding", sa.Text(), nullable=False),
        sa.Column("parameters", sa.JSON(), nullable=False, comment="of the request, as for POST /texts/bulk"),
        sa.Column("upload_length", sa.BigInteger(), nullable=True, comment="bytes of the body; null: not known"),
        sa.Column(
            "upload_offset",
            sa.BigInteger(),
            server_default="0",
            nullable=False,
            comment="bytes of the body in import_chunks",
        ),
        sa.Column(
            "has_body",
            sa.Boolean(),
            server_default=sa.true(),
            nullable=False,
            comment="import_chunks may hold rows of it",
        ),
        sa.Column("bytes_read", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column(
            "last_row", sa.BigInteger(), server_default="0", nullable=False, comment="rows up to it are counted"
        ),
        sa.Column("received", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("accepted", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("duplicates", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("rejected", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("problem", sa.JSON(), nullable=True, comment="why it failed, as RFC 9457 says it"),
        sa.Column(
            "crashes",
            sa.Integer(),
            server_default="0",
            nullable=False,
            comment="claims that ended badly since the last batch",
        ),
        sa.Column(
            "lease_owner", sa.Uuid(), nullable=True, comment="the claim that holds it: fences late finishers"
        ),
        sa.Column("lease_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column(
            "active_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
            comment="when bytes came last",
        ),
        sa.Column(
            "received_at",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="when the whole body was stored",
        ),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True, comment="when it was claimed first"),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_imports")),
        sa.UniqueConstraint("sequence", name=op.f("uq_imports_sequence")),
    )
    op.create_index(
        "ix_imports_open", "imports", ["state", "sequence"], unique=False, postgresql_where=sa.text("has_body")
    )
    op.create_index("ix_imports_finished_at", "imports", ["finished_at"], unique=False)
    op.create_table(
        "import_chunks",
        sa.Column("import_id", sa.Uuid(), nullable=False),
        sa.Column("offset", sa.BigInteger(), nullable=False, comment="of its first byte in the body"),
        sa.Column("data", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("import_id", "offset", name=op.f("pk_import_chunks")),
    )
    # Bodies are compressed already, or read once: compressing them again costs more than it saves.
    op.execute("alter table import_chunks alter column data set storage external")
    op.create_table(
        "import_rejects",
        sa.Column("import_id", sa.Uuid(), nullable=False),
        sa.Column("row", sa.BigInteger(), nullable=False, comment="from 1, as in the bulk answer"),
        sa.Column("code", sa.Text(), nullable=False),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.Column(
            "fields",
            sa.JSON(),
            nullable=True,
            comment="the row as it was read; null: unreadable or big",
        ),
        sa.PrimaryKeyConstraint("import_id", "row", name=op.f("pk_import_rejects")),
    )


def downgrade() -> None:
    """Take back."""
    op.drop_table("import_rejects")
    op.drop_table("import_chunks")
    op.drop_table("imports")
