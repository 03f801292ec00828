"""Trained models, their predictions, and the scores by which pending texts are ordered"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

_FORMER_JOBS = "push, pull, sweep, heal, rule, forget or settings"
_JOBS = "push, pull, sweep, heal, rule, model, forget or settings"
_SCORE = "coalesce(score, model_score)"


def upgrade() -> None:
    """Apply; releases before this one do not know of models. Without their index, `uncertain` claims sort."""
    _create_models()
    _create_predictions()
    comment = "the active model's, 0.5 to 1: 0.5 when its two best labels are equally likely"
    op.add_column("texts", sa.Column("model_score", sa.Float(53), comment=comment))
    op.create_index(
        "ix_texts_most_uncertain",
        "texts",
        ["dataset", sa.text(f"abs({_SCORE} - 0.5)"), "sequence"],
        postgresql_where=sa.text(f"status = 'pending' and {_SCORE} is not null"),
    )
    op.drop_index("ix_texts_uncertain", "texts")
    comment = "when an operator asked for a model to be trained; null once that was done"
    op.add_column("datasets", sa.Column("model_asked_at", sa.DateTime(timezone=True), comment=comment))
    op.alter_column("alerts", "job", comment=_JOBS, existing_comment=_FORMER_JOBS)


def _create_models() -> None:
    moment = sa.DateTime(timezone=True)
    op.create_table(
        "models",
        sa.Column("dataset", sa.Text(), nullable=False),
        sa.Column("version", sa.Text(), nullable=False, comment="12 hex digits of the hash of model.skops"),
        sa.Column("created_at", moment, nullable=False),
        sa.Column("is_active", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("activated_at", moment),
        sa.Column("decision", sa.Text(), nullable=False, comment="whether it became active, and why; for people"),
        sa.Column(
            "manifest",
            postgresql.JSONB(),
            nullable=False,
            comment="core.classifiers.model_files.ModelManifest",
        ),
        sa.PrimaryKeyConstraint("dataset", "version", name=op.f("pk_models")),
    )
    op.create_index("ix_models_active", "models", ["dataset"], unique=True, postgresql_where=sa.text("is_active"))


def _create_predictions() -> None:
    op.create_table(
        "predictions",
        sa.Column("text_id", sa.Uuid(), nullable=False),
        sa.Column("dataset", sa.Text(), nullable=False),
        sa.Column("model_version", sa.Text(), nullable=False),
        sa.Column("label", sa.Text(), nullable=False, comment="the most probable one"),
        sa.Column("probability", sa.Float(53), nullable=False, comment="of that label"),
        sa.Column(
            "probabilities",
            postgresql.ARRAY(sa.REAL()),
            nullable=False,
            comment="of all labels, in the order of the model's manifest",
        ),
        sa.Column(
            "quality",
            sa.Float(53),
            comment="cleanlab's quality of the text's label, 0 to 1: low is suspect; null: no label",
        ),
        sa.Column("quality_of", sa.Text(), comment="the label that `quality` is about"),
        sa.PrimaryKeyConstraint("text_id", name=op.f("pk_predictions")),
    )
    op.create_index("ix_predictions_dataset", "predictions", ["dataset", "model_version"])


def downgrade() -> None:
    """Take back; the models' files stay."""
    op.alter_column("alerts", "job", comment=_FORMER_JOBS, existing_comment=_JOBS)
    op.drop_column("datasets", "model_asked_at")
    op.create_index(
        "ix_texts_uncertain",
        "texts",
        ["dataset", sa.text("abs(score - 0.5)"), "sequence"],
        postgresql_where=sa.text("status = 'pending' and score is not null"),
    )
    op.drop_index("ix_texts_most_uncertain", "texts")
    op.drop_column("texts", "model_score")
    op.drop_table("predictions")
    op.drop_table("models")
