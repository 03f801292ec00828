"""Healing: which of Argilla's datasets an annotation belongs to, and the refill of a new one"""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.add_column(
        "annotations",
        sa.Column(
            "argilla_dataset_id",
            sa.Uuid(),
            nullable=True,
            comment="the dataset in Argilla that it was seen in last, or given back to",
        ),
    )
    op.add_column(
        "datasets",
        sa.Column(
            "refill_position",
            sa.Uuid(),
            nullable=True,
            comment="how far the texts of a lost Argilla dataset were put back into the queue, by id",
        ),
    )
    op.alter_column(
        "alerts",
        "job",
        existing_type=sa.Text(),
        existing_nullable=False,
        comment="push, pull, sweep or heal",
        existing_comment="push or sweep",
    )
    # Until now there was one only.
    op.execute("""
        update annotations set argilla_dataset_id = datasets.argilla_dataset_id
        from texts join datasets on datasets.name = texts.dataset
        where texts.id = annotations.text_id
    """)


def downgrade() -> None:
    """Take back."""
    op.alter_column(
        "alerts",
        "job",
        existing_type=sa.Text(),
        existing_nullable=False,
        comment="push or sweep",
        existing_comment="push, pull, sweep or heal",
    )
    op.drop_column("datasets", "refill_position")
    op.drop_column("annotations", "argilla_dataset_id")
