"""Whose an import is, and how much of its rejected rows is kept"""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply; releases before this one neither read nor write what is new."""
    client = sa.Column("client", sa.Text(), comment="who made it: the id of an API key, or an address")
    op.add_column("imports", client)
    op.add_column(
        "imports",
        sa.Column(
            "rejects_kept",
            sa.BigInteger(),
            server_default="0",
            nullable=False,
            comment="rejected rows in import_rejects: the first ones",
        ),
    )
    op.add_column(
        "imports",
        sa.Column(
            "reject_bytes",
            sa.BigInteger(),
            server_default="0",
            nullable=False,
            comment="length of these rows together",
        ),
    )
    op.execute("update imports set rejects_kept = rejected where rejected > 0")
    # For the turns of clients, and for what each of them has stored.
    op.create_index("ix_imports_client", "imports", ["client", "started_at"])


def downgrade() -> None:
    """Take back."""
    op.drop_index("ix_imports_client", "imports")
    for column in ("reject_bytes", "rejects_kept", "client"):
        op.drop_column("imports", column)
