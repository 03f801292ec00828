"""The tables, by concept. Import them from here: then all of them are known to SQLAlchemy."""

from core.models.administration import AlertRow, ApiKey, AuditEntry, DatasetRow, ForgetRequest, Webhook
from core.models.base import Base, Xid8
from core.models.labels import (
    REREADS_CHANNEL,
    Annotation,
    AnnotationStatus,
    Decider,
    Label,
    LabelStatus,
    Model,
    Prediction,
    Reread,
)
from core.models.texts import (
    Import,
    ImportChunk,
    ImportReject,
    ImportState,
    NearDuplicate,
    NearDuplicateBand,
    Text,
    TextStatus,
)

__all__ = [
    "REREADS_CHANNEL",
    "AlertRow",
    "Annotation",
    "AnnotationStatus",
    "ApiKey",
    "AuditEntry",
    "Base",
    "DatasetRow",
    "Decider",
    "ForgetRequest",
    "Import",
    "ImportChunk",
    "ImportReject",
    "ImportState",
    "Label",
    "LabelStatus",
    "Model",
    "NearDuplicate",
    "NearDuplicateBand",
    "Prediction",
    "Reread",
    "Text",
    "TextStatus",
    "Webhook",
    "Xid8",
]
