"""Text identity: normalisation, the id that follows from it, the size limit, and invisible characters."""

import hashlib
import re
import unicodedata
from uuid import UUID

# UTF-8, normalised. More is refused.
TEXT_BYTES = 64 * 1024

# Parts of a character class that Python and JSON schemas (ECMA 262) read alike: `\s` differs between them.
# White space: what `str.strip` removes.
BLANK = r"\t-\r\x1c-\x20\x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
# Unicode's Default_Ignorable_Code_Point.
IGNORABLE = (
    r"\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f"
    r"\ufeff\uffa0\ufff0-\ufff8"
    "\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff"
)
# Also control characters, interlinear annotation marks, and the characters whose glyph is blank (Braille, Khitan,
# Egyptian, musical).
INVISIBLE = (
    rf"{BLANK}{IGNORABLE}\x00-\x1f\x7f-\x9f\u2800\ufff9-\ufffb"
    "\U00013441\U00013442\U00016fe4\U0001d159"
)
_VISIBLE = re.compile(f"[^{INVISIBLE}]")

# Less than every id: where a walk by id begins.
BEFORE_ALL = UUID(int=0)

# The bits of a UUID with its version, 8 (defined by the application), and the variant of RFC 9562; all other bits.
_FIXED_BITS = 8 << 76 | 0b10 << 62
_FREE_BITS = ~(0xF << 76 | 0b11 << 62)


def normalise(text: str) -> str:
    """Return `text` in Unicode NFC without outer white space: the form that is stored and compared."""
    return unicodedata.normalize("NFC", text).strip()


def is_visible(text: str) -> bool:
    """Whether a text has at least one character that a reader can see."""
    return _VISIBLE.search(text) is not None


def text_id(dataset: str, normalised_text: str) -> UUID:
    """Return the id of a text: a UUIDv8 (RFC 9562) from SHA-256 of dataset and normalised text.

    The same in every process, machine and version: clients and stored rows rely on it.
    """
    return UUID(bytes=text_key(dataset, normalised_text))


def text_key(dataset: str, normalised_text: str) -> bytes:
    """Return the 16 bytes of `text_id`: half of its time goes into the object."""
    digest = hashlib.sha256(f"{dataset}\0{normalised_text}".encode()).digest()
    return (int.from_bytes(digest[:16]) & _FREE_BITS | _FIXED_BITS).to_bytes(16)
