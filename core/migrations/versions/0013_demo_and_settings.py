"""Demo texts, which the uploader leaves alone; and the settings of each dataset that are in force in Argilla"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

_OLD_STATUSES = "'pending', 'uploading', 'uploaded', 'failed', 'forgotten', 'near_duplicate'"
_FORMER_JOBS = "push, pull, sweep, heal, rule or forget"
_JOBS = "push, pull, sweep, heal, rule, forget or settings"


def upgrade() -> None:
    """Apply; releases before this one neither read nor write what is new."""
    op.drop_constraint(op.f("ck_texts_status"), "texts")
    op.create_check_constraint(op.f("ck_texts_status"), "texts", f"status in ({_OLD_STATUSES}, 'demo')")
    comment = "the definition that was last applied in Argilla"
    op.add_column("datasets", sa.Column("settings", postgresql.JSONB(), comment=comment))
    comment = "a definition that asks annotators for less, and that an operator allowed"
    op.add_column("datasets", sa.Column("settings_approved", postgresql.JSONB(), comment=comment))
    op.alter_column("alerts", "job", comment=_JOBS, existing_comment=_FORMER_JOBS)


def downgrade() -> None:
    """Take back; demo texts count as uploaded, as they did before."""
    op.alter_column("alerts", "job", comment=_FORMER_JOBS, existing_comment=_JOBS)
    op.drop_column("datasets", "settings_approved")
    op.drop_column("datasets", "settings")
    op.execute("update texts set status = 'uploaded' where status = 'demo'")
    op.drop_constraint(op.f("ck_texts_status"), "texts")
    op.create_check_constraint(op.f("ck_texts_status"), "texts", f"status in ({_OLD_STATUSES})")
