"""Annotators' work: pacing, order, gold texts, adjudication, label rules"""

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

from core.models import Xid8

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

_TEXTS: tuple[sa.Column[Any], ...] = (
    sa.Column(
        "completed_at",
        sa.DateTime(timezone=True),
        comment="since when it has as many submitted annotations as its dataset wants",
    ),
    sa.Column(
        "page_position",
        sa.BigInteger(),
        comment="where its record stands in Argilla's page; null: not sent yet, or failed since",
    ),
    sa.Column("gold_label", sa.Text(), comment="the known answer of a gold text"),
    sa.Column(
        "adjudicates",
        sa.Uuid(),
        comment="the disputed text that this one puts before adjudicators",
    ),
)
_LABELS: tuple[sa.Column[Any], ...] = (
    sa.Column(
        "confidence",
        sa.Float(53),
        comment="probability of the label by the rule; of a majority, its agreement",
    ),
    sa.Column("rule", sa.String(16), nullable=False, server_default="majority"),
    sa.Column(
        "rule_version",
        sa.Integer(),
        nullable=False,
        server_default="1",
        comment="the estimate that it was derived by; a later one may say the same",
    ),
    sa.Column("decided_by", sa.String(16), nullable=False, server_default="annotators"),
)
_DATASETS: tuple[sa.Column[Any], ...] = (
    sa.Column("answers_wanted", sa.Integer(), comment="the number that texts.completed_at follows"),
    sa.Column(
        "completion_position",
        sa.Uuid(),
        comment="how far texts.completed_at was put right after that number changed, by id",
    ),
    sa.Column(
        "gold_owed",
        sa.Float(53),
        nullable=False,
        server_default="0",
        comment="gold texts that the share asks for beyond those claimed",
    ),
    sa.Column(
        "uncertain_owed",
        sa.Float(53),
        nullable=False,
        server_default="0",
        comment="the same of uncertain texts, in mixed order",
    ),
    sa.Column("rule", sa.Text(), comment="the label rule that was estimated last"),
    sa.Column(
        "rule_version",
        sa.Integer(),
        nullable=False,
        server_default="0",
        comment="how often a label rule was estimated",
    ),
    sa.Column("rule_parameters", JSONB(), comment="what was estimated, for new answers"),
    sa.Column("rule_estimated_at", sa.DateTime(timezone=True)),
    sa.Column("rule_answers", sa.Text(), comment="digest of the answers that it was estimated from"),
    sa.Column("rule_seen_xid", Xid8(), comment="labels that were changed before are as the rule says"),
)
_FORMER_JOBS, _JOBS = "push, pull, sweep or heal", "push, pull, sweep, heal or rule"
_RULES = "'majority', 'dawid_skene', 'mace', 'glad'"


def upgrade() -> None:
    """Apply."""
    for column in _TEXTS:
        op.add_column("texts", column)
    op.create_index(
        "ix_texts_open",
        "texts",
        ["dataset"],
        postgresql_where=sa.text("status in ('uploading', 'uploaded') and completed_at is null"),
    )
    op.create_index(
        "ix_texts_uncertain",
        "texts",
        ["dataset", sa.text("abs(score - 0.5)"), "sequence"],
        postgresql_where=sa.text("status = 'pending' and score is not null"),
    )
    op.create_index(
        "ix_texts_returning",
        "texts",
        ["dataset", "page_position"],
        postgresql_where=sa.text("status = 'pending' and page_position is not null"),
    )
    op.create_index(
        "ix_texts_gold",
        "texts",
        ["dataset", "status", "sequence"],
        postgresql_where=sa.text("gold_label is not null"),
    )
    op.create_index(
        "ix_texts_adjudicates", "texts", ["adjudicates"], postgresql_where=sa.text("adjudicates is not null")
    )
    for column in _LABELS:
        op.add_column("labels", column)
    op.create_check_constraint(op.f("ck_labels_rule"), "labels", f"rule in ({_RULES})")
    op.create_check_constraint(
        op.f("ck_labels_decided_by"), "labels", "decided_by in ('annotators', 'adjudicators')"
    )
    # A majority's confidence is its agreement; a dispute has none.
    op.execute("update labels set confidence = agreement where status = 'labelled'")
    for column in _DATASETS:
        op.add_column("datasets", column)
    op.alter_column("alerts", "job", comment=_JOBS, existing_comment=_FORMER_JOBS)


def downgrade() -> None:
    """Take back."""
    op.alter_column("alerts", "job", comment=_FORMER_JOBS, existing_comment=_JOBS)
    for column in _DATASETS:
        op.drop_column("datasets", column.name)
    for name in ("confidence", "rule", "rule_version", "decided_by"):
        op.drop_column("labels", name)
    for name in ("adjudicates", "gold", "returning", "uncertain", "open"):
        op.drop_index(f"ix_texts_{name}", "texts")
    for column in _TEXTS:
        op.drop_column("texts", column.name)
