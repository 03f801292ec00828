"""Keys that are limited to datasets, and imports that such keys made"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply; releases before this one do not read the columns, and so do not hold the limits."""
    names = postgresql.ARRAY(sa.Text())
    op.add_column("api_keys", sa.Column("datasets", names, comment="that it may use; null: all"))
    comment = "that its rows may name, as the sender's key; null: all"
    op.add_column("imports", sa.Column("datasets", names, comment=comment))


def downgrade() -> None:
    """Take back; limited keys are withdrawn, for they would open all datasets."""
    op.execute("update api_keys set withdrawn_at = coalesce(withdrawn_at, now()) where datasets is not null")
    op.drop_column("imports", "datasets")
    op.drop_column("api_keys", "datasets")
