"""Cursors: the position in a list at which a page begins. Opaque to clients, the same in every process."""

import hashlib
import struct
from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 - the replica holds UTC without a zone
_MICROSECOND = timedelta(microseconds=1)
_POSITION = struct.Struct(">q16s")
_CHECK_BYTES = 8

# What every cursor looks like: 32 bytes in base64url, whose last character holds four bits.
CURSOR = "^[A-Za-z0-9_-]{42}[AEIMQUYcgkosw048]$"


@dataclass(frozen=True, slots=True)
class Position:
    """The last item that was shown."""

    rank: int  # by which the list is ordered: `microseconds` of a timestamp, or what its query says
    id: UUID


def microseconds(timestamp: datetime) -> int:
    """Return a timestamp, UTC without a zone, as microseconds since 1970."""
    return (timestamp - _EPOCH) // _MICROSECOND


def timestamp(microseconds: int) -> datetime:
    """Return the timestamp, UTC without a zone, that is so many microseconds after 1970."""
    return _EPOCH + microseconds * _MICROSECOND


def encode(position: Position, query: bytes) -> str:
    """Return the cursor that goes on after `position` in the list that `query` identifies."""
    packed = _POSITION.pack(position.rank, position.id.bytes)
    return urlsafe_b64encode(packed + _check(packed, query)).decode().rstrip("=")


def decode(cursor: str, query: bytes) -> Position:
    """Return the position that `cursor` holds.

    Raises:
        ValueError: it was not made here, was changed, or belongs to another list.
    """
    raw = urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
    packed, check = raw[: _POSITION.size], raw[_POSITION.size :]
    if len(packed) != _POSITION.size or check != _check(packed, query):
        raise ValueError("not a cursor of this list")
    rank, id_bytes = _POSITION.unpack(packed)
    return Position(rank, UUID(bytes=id_bytes))


def _check(packed: bytes, query: bytes) -> bytes:
    return hashlib.sha256(packed + query).digest()[:_CHECK_BYTES]
