"""Webhooks, and sweeps that go on after a restart"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_TIME = sa.DateTime(timezone=True)
_DATASET_COLUMNS = (
    ("argilla_dataset_at", _TIME, "when that one was first used: what was uploaded before is not in it"),
    ("events_applied_at", _TIME, "Argilla's time of the newest event that was applied"),
    ("difference_seen", JSONB(), "what Argilla counted otherwise than we when the last complete sweep began"),
    ("sweep_position", sa.Uuid(), "how far the sweep under way has come, by id"),
    ("sweep_activity_at", _TIME, "last_activity_at when it began"),
    ("sweep_difference", JSONB(), "what was counted when it began"),
)


def upgrade() -> None:
    """Apply."""
    for name, kind, comment in _DATASET_COLUMNS:
        op.add_column("datasets", sa.Column(name, kind, nullable=True, comment=comment))
    op.alter_column(
        "datasets",
        "activity_seen_at",
        existing_type=_TIME,
        comment="Argilla's last_activity_at when the last complete sweep began",
        existing_comment="Argilla's last_activity_at when the last sweep began",
    )
    op.create_table(
        "rereads",
        sa.Column("text_id", sa.Uuid(), nullable=False),
        sa.Column("dataset", sa.Text(), nullable=False),
        sa.Column("argilla_record_id", sa.Uuid(), nullable=False),
        sa.Column("event_at", _TIME, nullable=False, comment="Argilla's time of the newest event"),
        sa.Column("received_at", _TIME, nullable=False, comment="when the first event came"),
        sa.Column(
            "stamp",
            sa.Uuid(),
            nullable=False,
            comment="another one with each event: what was read before stays noted",
        ),
        sa.PrimaryKeyConstraint("text_id", name=op.f("pk_rereads")),
    )
    op.create_index("ix_rereads_dataset_received_at", "rereads", ["dataset", "received_at"], unique=False)
    op.create_table(
        "webhooks",
        sa.Column("id", sa.Uuid(), nullable=False, comment="Argilla's id"),
        sa.Column("secret", sa.Text(), nullable=False, comment="Argilla signs its events with it"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_webhooks")),
    )


def downgrade() -> None:
    """Take back."""
    op.drop_table("webhooks")
    op.drop_table("rereads")
    op.alter_column(
        "datasets",
        "activity_seen_at",
        existing_type=_TIME,
        comment="Argilla's last_activity_at when the last sweep began",
        existing_comment="Argilla's last_activity_at when the last complete sweep began",
    )
    for name, *_ in _DATASET_COLUMNS:
        op.drop_column("datasets", name)
