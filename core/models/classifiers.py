"""The trained models of each dataset, and their predictions."""

from datetime import datetime
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Mapped, mapped_column

from core.models.base import Base


class Model(Base):
    """A trained model. Its files are in the storage of the snapshots: see core.classifiers.model_files."""

    __tablename__ = "models"

    dataset: Mapped[str] = mapped_column(primary_key=True)
    version: Mapped[str] = mapped_column(primary_key=True, comment="12 hex digits of the hash of model.skops")
    created_at: Mapped[datetime]
    is_active: Mapped[bool] = mapped_column(server_default=sa.text("false"))
    activated_at: Mapped[datetime | None]
    decision: Mapped[str] = mapped_column(comment="whether it became active, and why; for people")
    manifest: Mapped[dict[str, Any]] = mapped_column(comment="core.classifiers.model_manifest.ModelManifest")

    __table_args__ = (sa.Index("ix_models_active", "dataset", unique=True, postgresql_where=sa.text("is_active")),)


class Prediction(Base):
    """The prediction of the active model for a text; for a text that it was trained on, an out-of-fold one."""

    __tablename__ = "predictions"

    text_id: Mapped[UUID] = mapped_column(primary_key=True)
    dataset: Mapped[str]
    model_version: Mapped[str]
    label: Mapped[str] = mapped_column(comment="the most probable one")
    probability: Mapped[float] = mapped_column(sa.Float(53), comment="of that label")
    probabilities: Mapped[list[float]] = mapped_column(
        ARRAY(sa.REAL), comment="of all labels, in the order of the model's manifest"
    )
    quality: Mapped[float | None] = mapped_column(
        sa.Float(53), comment="cleanlab's quality of the text's label, 0 to 1: low is suspect; null: no label"
    )
    quality_of: Mapped[str | None] = mapped_column(comment="the label that `quality` is about")

    __table_args__ = (sa.Index("ix_predictions_dataset", "dataset", "model_version"),)
