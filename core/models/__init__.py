"""The tables, by concept. Import them from here: then all of them are known to SQLAlchemy."""

from core.models.administration import ApiKey, AuditEntry, ForgetRequest
from core.models.base import Base, Xid8
from core.models.classifiers import Model, Prediction
from core.models.imports import Import, ImportChunk, ImportReject, ImportState
from core.models.labels import REREADS_CHANNEL, Annotation, AnnotationStatus, Decider, Label, LabelStatus, Reread
from core.models.texts import NearDuplicate, NearDuplicateBand, Text, TextStatus
from core.models.uploader_state import Alert, Dataset, Webhook

__all__ = [
    "REREADS_CHANNEL",
    "Alert",
    "Annotation",
    "AnnotationStatus",
    "ApiKey",
    "AuditEntry",
    "Base",
    "Dataset",
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
