"""Text identity: normalisation, the id that follows from it, and the size limit."""

import hashlib
import unicodedata
from uuid import UUID

# UTF-8, normalised. More is refused.
TEXT_BYTES = 64 * 1024

# Less than every id: where a walk by id begins.
BEFORE_ALL = UUID(int=0)

# A UUID's bits that tell version 8 (the application's own) and the variant of RFC 9562, and all others.
_FIXED_BITS = 8 << 76 | 0b10 << 62
_FREE_BITS = ~(0xF << 76 | 0b11 << 62)


def normalise(text: str) -> str:
    """Return `text` in Unicode NFC without outer white space: the form that is stored and compared."""
    return unicodedata.normalize("NFC", text).strip()


def text_id(dataset: str, normalised_text: str) -> UUID:
    """Return the id of a text: a UUIDv8 (RFC 9562) from SHA-256 of dataset and normalised text.

    The same in every process, machine and version: clients and stored rows rely on it.
    """
    return UUID(bytes=text_key(dataset, normalised_text))


def text_key(dataset: str, normalised_text: str) -> bytes:
    """Return the 16 bytes of `text_id`: half of its time goes into the object."""
    digest = hashlib.sha256(f"{dataset}\0{normalised_text}".encode()).digest()
    return (int.from_bytes(digest[:16]) & _FREE_BITS | _FIXED_BITS).to_bytes(16)
