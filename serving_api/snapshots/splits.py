"""Assigns texts to splits: a hash of the id and the seed is compared with the cumulated shares.

The shares are cumulated in the order of the splits' names, so the order in a request does not matter.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from typing import NamedTuple

import pyarrow as pa

# Hexadecimal digits of SHA-256: they fit a bigint.
_DIGITS = 13
SPACE = 16**_DIGITS

# Near duplicates share a split: that of the first one.
GROUP = "coalesce(near_duplicate_of, id)"


def thresholds(shares: Mapping[str, float]) -> list[tuple[str, int]]:
    """Return the names of the splits, each with the hash at which it ends; the last one ends at SPACE."""
    ends, total = [], Fraction(0)
    for name, share in sorted(shares.items()):
        total += Fraction(str(share))
        ends.append((name, int(total * SPACE)))
    return [*ends[:-1], (ends[-1][0], SPACE)]


def hashed(seed: int) -> str:
    """Return the SQL expression of a text's hash, from 0 up to SPACE: the first digits of SHA-256 of `SEED ID`."""
    return f"('0x' || left(sha256('{seed:d} ' || {GROUP}::varchar), {_DIGITS}))::bigint"


def place_of(shares: Mapping[str, float]) -> str:
    """Return the SQL expression of a text's split, from its `hash`: the index among the sorted names."""
    *before, _ = [end for _, end in thresholds(shares)]
    whens = " ".join(f"when hash < {end:d} then {place:d}" for place, end in enumerate(before))
    return f"case {whens} else {len(before):d} end" if before else "0"


class Former(NamedTuple):
    """Batches from earlier snapshots; each iterable is read once."""

    ids: Iterable[tuple[int, pa.RecordBatch]]  # the index of a split, and a batch of its column `id`
    twins: Iterable[pa.RecordBatch]  # `id` of near duplicates, and the `root` of each


def quotas(held: Sequence[tuple[str, int | None, int]], shares: Sequence[float]) -> pa.Table:
    """Return the bounds of each label's splits, as `bounds_of` does."""
    counts: dict[str, dict[int | None, int]] = defaultdict(lambda: defaultdict(int))
    for stratum, place, rows in held:
        counts[stratum][place] = rows
    bounds = [bounds_of(rows, shares) for rows in counts.values()]
    types = {"stratum": pa.string(), "bounds": pa.list_(pa.int64())}
    return pa.table({"stratum": [*counts], "bounds": bounds}, schema=pa.schema(types))


def bounds_of(rows: Mapping[int | None, int], shares: Sequence[float]) -> list[int]:
    """Return where each split but the last one ends, counted in half rows that have no split yet.

    `rows` are the numbers of a label's rows by split; None: no split yet. These rows are divided in proportion to
    the rows that each split lacks.
    """
    total, fresh = sum(rows.values()), rows.get(None, 0)
    lacks = [
        max(Fraction(0), Fraction(str(share)) * total - rows.get(place, 0)) for place, share in enumerate(shares)
    ]
    lacked = sum(lacks, Fraction(0)) or Fraction(1)
    ends, end = [], Fraction(0)
    for lack in lacks[:-1]:
        end += lack
        ends.append(math.ceil(2 * fresh * end / lacked))
    return ends
