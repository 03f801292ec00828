"""Moments as they are sent."""

from datetime import datetime


def to_text(moment: datetime) -> str:
    """Return a moment, UTC without a zone, in RFC 3339 with microseconds."""
    return f"{moment.isoformat(timespec='microseconds')}Z"
