"""Enrichment"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_OLD_STATUSES = "'pending', 'uploading', 'uploaded', 'failed'"


def upgrade() -> None:
    """Apply."""
    op.add_column(
        "texts",
        sa.Column(
            "enrichment",
            JSONB(),
            server_default=sa.text("'{}'"),
            nullable=False,
            comment="what was found at intake: language, redacted (counts)",
        ),
    )
    op.drop_constraint(op.f("ck_texts_status"), "texts")
    op.create_check_constraint(op.f("ck_texts_status"), "texts", f"status in ({_OLD_STATUSES}, 'near_duplicate')")
    op.create_index(
        "ix_texts_near_duplicate",
        "texts",
        ["dataset", "sequence"],
        unique=False,
        postgresql_where=sa.text("status = 'near_duplicate'"),
    )
    op.create_table(
        "near_duplicate_bands",
        sa.Column(
            "band", sa.BigInteger(), nullable=False, comment="hash of dataset, place of the band and its rows"
        ),
        sa.Column(
            "place",
            sa.BigInteger(),
            sa.Identity(always=False),
            nullable=False,
            comment="order in which texts were stored",
        ),
        sa.Column("text_id", sa.Uuid(), nullable=False),
        sa.PrimaryKeyConstraint("band", "place", name=op.f("pk_near_duplicate_bands")),
    )
    op.create_table(
        "near_duplicates",
        sa.Column("text_id", sa.Uuid(), nullable=False, comment="the one that was stored later"),
        sa.Column("twin_id", sa.Uuid(), nullable=False),
        sa.Column(
            "similarity", sa.Float(precision=53), nullable=False, comment="Jaccard similarity of their shingles"
        ),
        sa.PrimaryKeyConstraint("text_id", "twin_id", name=op.f("pk_near_duplicates")),
    )
    op.create_index("ix_near_duplicates_twin_id", "near_duplicates", ["twin_id"], unique=False)


def downgrade() -> None:
    """Take back; what was held for a near twin is pending again."""
    op.drop_table("near_duplicates")
    op.drop_table("near_duplicate_bands")
    op.drop_index("ix_texts_near_duplicate", "texts")
    # near_duplicate -> pending: nobody knows the twins any more
    op.execute("update texts set status = 'pending' where status = 'near_duplicate'")
    op.drop_constraint(op.f("ck_texts_status"), "texts")
    op.create_check_constraint(op.f("ck_texts_status"), "texts", f"status in ({_OLD_STATUSES})")
    op.drop_column("texts", "enrichment")
