"""Leaders by lease, and alerts"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.add_column(
        "datasets",
        sa.Column("leader_id", sa.Uuid(), nullable=True, comment="the uploader that works on the dataset"),
    )
    op.add_column(
        "datasets",
        sa.Column(
            "leader_until",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="when another uploader may take over",
        ),
    )
    op.create_table(
        "alerts",
        sa.Column("dataset", sa.Text(), nullable=False),
        sa.Column("job", sa.Text(), nullable=False, comment="push or sweep"),
        sa.Column("code", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False, comment="for people; says what to do"),
        sa.Column("since", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("dataset", "job", name=op.f("pk_alerts")),
    )


def downgrade() -> None:
    """Undo."""
    op.drop_table("alerts")
    op.drop_column("datasets", "leader_until")
    op.drop_column("datasets", "leader_id")
