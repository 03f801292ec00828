"""The scope that writes snapshots: keys that could so far still can"""

from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply; releases before this one ignore the scope."""
    op.execute("""
        update api_keys set scopes = array_append(scopes, 'snapshot')
        where 'read' = any(scopes) and not 'snapshot' = any(scopes)
    """)


def downgrade() -> None:
    """Take back."""
    op.execute("update api_keys set scopes = array_remove(scopes, 'snapshot')")
