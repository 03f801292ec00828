"""Which texts are nearly the same: shingles, their Jaccard similarity, and MinHash bands to find candidates by.

What is computed here is stored: another shingle, seed or number of bands, or another version of rensa's algorithm,
makes texts that are stored from then on miss those stored before. A test holds fixed vectors against it.
"""

import unicodedata
from hashlib import blake2b

from rensa import RMinHash

_SHINGLE_CHARACTERS = 5
# 16 bands of 4: of pairs with Jaccard similarity 0.7 98.8 % share a band, with 0.8 99.98 %, with 0.2 2.5 %.
_BANDS = 16
_BAND_ROWS = 4
_SEED = 20260101

_BASIC_PLANE = 0x10000


class _Plain(dict[int, int]):
    """For `str.translate`: a space for punctuation, white space and control characters; all else stays.

    What stays is letters, marks, digits and symbols: emoji tell texts apart.
    """

    def __missing__(self, code: int) -> int:
        plain = ord(" ") if unicodedata.category(chr(code))[0] in "PZC" else code
        if code < _BASIC_PLANE:  # the rest is rare, and too many to remember
            self[code] = plain
        return plain


_PLAIN = _Plain()

Shingles = frozenset[str]


def shingles(text: str) -> Shingles:
    """Return all runs of 5 characters of the text without case and punctuation; the whole, if it is shorter.

    Characters rather than words, since not every language puts spaces between them. Empty for a text of
    punctuation only: such a text has no twins.
    """
    folded = unicodedata.normalize("NFKC", text).casefold()
    plain = " ".join(folded.translate(_PLAIN).split())
    count = max(len(plain) - _SHINGLE_CHARACTERS + 1, 1) if plain else 0
    return frozenset(plain[i : i + _SHINGLE_CHARACTERS] for i in range(count))


def similarity(one: Shingles, other: Shingles) -> float:
    """Return the Jaccard similarity of two sets that are not both empty: 0 to 1."""
    common = len(one & other)
    return common / (len(one) + len(other) - common)


def bands(dataset: str, shingles: Shingles) -> list[int]:
    """Return the signature's bands as 64-bit numbers; texts of one dataset that share one may be near twins."""
    if not shingles:
        return []
    sketch = RMinHash(num_perm=_BANDS * _BAND_ROWS, seed=_SEED)
    sketch.update(list(shingles))
    rows = sketch.digest()
    return [_number(dataset, place, rows[place : place + _BAND_ROWS]) for place in range(0, len(rows), _BAND_ROWS)]


def _number(dataset: str, place: int, rows: list[int]) -> int:
    digest = blake2b(f"{dataset} {place} {rows}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, signed=True)
