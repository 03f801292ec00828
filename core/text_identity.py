"""What makes two texts the same: normalisation, and the id that follows from it."""

import hashlib
import unicodedata
from uuid import UUID


def normalise(text: str) -> str:
    """Return `text` in Unicode NFC without outer white space: the form that is stored and compared."""
    return unicodedata.normalize("NFC", text).strip()


def text_id(dataset: str, normalised_text: str) -> UUID:
    """Return the id of a text: a UUIDv8 (RFC 9562) from SHA-256 of dataset and normalised text.

    The same in every process, machine and version: clients and stored rows rely on it.
    """
    digest = hashlib.sha256(f"{dataset}\0{normalised_text}".encode()).digest()
    number = int.from_bytes(digest[:16])
    number = number & ~(0xF << 76) | 8 << 76  # version 8: the application's own
    number = number & ~(0b11 << 62) | 0b10 << 62  # variant of RFC 9562
    return UUID(int=number)
