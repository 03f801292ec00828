"""Which split a text belongs to: a hash of its id and the seed, held against the shares.

The shares are taken in the order of the splits' names, so that the order of a request's members says nothing.
"""

from collections.abc import Mapping
from fractions import Fraction

# Of SHA-256, as many hexadecimal digits as fit a bigint with ease.
_DIGITS = 13
SPACE = 16**_DIGITS

# Twins stay together: they go where the text goes that they began with.
GROUP = "coalesce(near_duplicate_of, id)"


def thresholds(shares: Mapping[str, float]) -> list[tuple[str, int]]:
    """Return the names of the splits, and below which hash, of SPACE, each ends; the last one ends with SPACE."""
    ends, total = [], Fraction(0)
    for name, share in sorted(shares.items()):
        total += Fraction(str(share))
        ends.append((name, int(total * SPACE)))
    return [*ends[:-1], (ends[-1][0], SPACE)]


def hashed(seed: int) -> str:
    """Return the SQL expression of a text's hash, from 0 up to SPACE: the first digits of SHA-256 of `SEED ID`."""
    return f"('0x' || left(sha256('{seed:d} ' || {GROUP}::varchar), {_DIGITS}))::bigint"


def place_of(shares: Mapping[str, float]) -> str:
    """Return the SQL expression of a text's split, from its `hash`: the split's place among the names in order."""
    *before, _ = [end for _, end in thresholds(shares)]
    whens = " ".join(f"when hash < {end:d} then {place:d}" for place, end in enumerate(before))
    return f"case {whens} else {len(before):d} end" if before else "0"
