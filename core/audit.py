"""The audit log: actor, action and objects. No entry holds a text or a secret.

A change in Postgres is logged in the same transaction, in the table `audit_log`. The serving API works without
Postgres, so its changes of files are log lines `audit` only. The other programs write such a line, too.
"""

import getpass
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import structlog
from sqlalchemy import Insert, insert

from core.models import AuditEntry

log = structlog.get_logger()

_IDS_KEPT = 100


class Action(StrEnum):
    """The kinds of actions, with their objects."""

    KEY_CREATED = "key.created"
    KEY_WITHDRAWN = "key.withdrawn"
    UPLOADS_RETRIED = "uploads.retried"  # texts
    TEXTS_FORGOTTEN = "texts.forgotten"
    TEXTS_LIFTED = "texts.lifted"  # forgotten ones may be sent again
    IMPORT_DELETED = "import.deleted"
    GOLD_ADDED = "gold.added"  # texts
    GOLD_REMOVED = "gold.removed"  # texts
    ANNOTATOR_ADDED = "annotator.added"
    ANNOTATOR_PASSWORD = "annotator.password_reset"  # noqa: S105 - the name of an action
    ANNOTATOR_REMOVED = "annotator.removed"
    ANNOTATOR_DELETED = "annotator.deleted"
    SNAPSHOT_REWRITTEN = "snapshot.rewritten"
    SNAPSHOT_DELETED = "snapshot.deleted"
    ARGILLA_CHANGED = "argilla.changed"  # a dataset, a workspace or a webhook there, as the settings have it
    MODEL_ASKED = "model.asked"  # a training
    MODEL_ACTIVATED = "model.activated"
    SUSPECTS_ASKED = "suspects.asked"  # texts, put before adjudicators
    SETTINGS_APPROVED = "settings.approved"  # a definition that asks annotators for less


@dataclass(frozen=True, slots=True)
class Actor:
    """Who did it."""

    kind: str  # key, account, program, nobody
    name: str


@dataclass(frozen=True, slots=True)
class Entry:
    """One action. `details` has names of datasets, scopes and numbers, and nothing that a user wrote."""

    program: str
    actor: Actor
    action: Action
    ids: Collection[str]
    outcome: str = "done"  # or failed
    details: Mapping[str, Any] = field(default_factory=dict)


def account() -> Actor:
    """Return the operating system's account that runs this process."""
    try:
        return Actor("account", getpass.getuser())
    except (OSError, KeyError):
        return Actor("account", "unknown")


def caller(scope: Mapping[str, Any]) -> Actor:
    """Return the API key of a request, given by its ASGI scope, as an actor; without keys, the kind `nobody`."""
    key = scope.get("api_key")
    return Actor("key", f"{key.id} {key.name}") if key else Actor("nobody", "")


def noting(entry: Entry) -> Insert:
    """Return the INSERT of an entry, for the transaction that makes the change."""
    return insert(AuditEntry).values(program=entry.program, details=dict(entry.details), **_fields(entry))


def write_line(entry: Entry) -> None:
    """Write the log line of an entry."""
    log.info("audit", **_fields(entry), **entry.details)


def _fields(entry: Entry) -> dict[str, Any]:
    return {
        "action": entry.action.value,
        "actor_kind": entry.actor.kind,
        "actor": entry.actor.name,
        "object_ids": sorted(map(str, entry.ids))[:_IDS_KEPT],
        "objects": len(entry.ids),
        "outcome": entry.outcome,
    }
