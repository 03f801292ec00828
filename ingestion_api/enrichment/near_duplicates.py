"""Which texts are nearly the same: shingles, their Jaccard similarity, and MinHash bands to find candidates by.

What is computed here is stored: another shingle, seed or number of bands, or another version of rensa's algorithm,
makes texts that are stored from then on miss those stored before. A test holds fixed vectors against it.
"""

import unicodedata
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import TypeVar
from uuid import UUID

from rensa import RMinHash

from core.datasets import Dataset

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


# Of a million texts with the same beginning, each is compared with the first ones only.
BAND_TEXTS = 20
CANDIDATES = 20
_LINKS = 10

Key = TypeVar("Key")
Link = tuple[UUID, UUID, float]  # the later text, its twin, their similarity


@dataclass(slots=True)
class Known:
    """A text that may be a twin; `asked`: annotators are, or will be, asked for it."""

    id: UUID
    shingles: Shingles
    asked: bool


class NewKnown(Known):
    """One that was just stored."""

    __slots__ = ("bands", "dataset")

    def __init__(self, id_: UUID, dataset: str, text: str) -> None:
        super().__init__(id_, shingles(text), asked=True)
        self.dataset = dataset
        self.bands = bands(dataset, self.shingles)


@dataclass(slots=True)
class Outcome:
    """The links that were found, and the texts that are held."""

    links: list[Link] = field(default_factory=list)
    held: set[UUID] = field(default_factory=set)


def most_shared(counts: Counter[Key]) -> list[Key]:
    """Return the candidates that share most bands."""
    return [candidate for candidate, _ in counts.most_common(CANDIDATES)]


def decide(
    group: list[NewKnown],
    shared: dict[UUID, Counter[UUID]],
    known: dict[UUID, Known],
    datasets: dict[str, Dataset],
) -> Outcome:
    """Go through new texts in their order; each is compared with stored ones and with those before it.

    `shared` counts the bands that a new text shares with stored ones, `known` has those that share most.
    """
    outcome = Outcome()
    before: defaultdict[int, list[int]] = defaultdict(list)  # places in the group by band
    for place, text in enumerate(group):
        here = Counter(other for band in text.bands for other in before[band])
        candidates = [known[id_] for id_ in most_shared(shared[text.id])]
        candidates += [group[other] for other in most_shared(here)]
        twins = _twins(text, candidates, datasets[text.dataset].near_duplicate_similarity)
        outcome.links += [(text.id, twin.id, alike) for twin, alike in twins]
        if datasets[text.dataset].near_duplicates == "ask_once" and any(twin.asked for twin, _ in twins):
            text.asked = False
            outcome.held.add(text.id)
        for band in text.bands:
            if len(before[band]) < BAND_TEXTS:
                before[band].append(place)
    return outcome


def _twins(text: Known, candidates: list[Known], least: float) -> list[tuple[Known, float]]:
    """Return the twins among the candidates; those that are asked, then the most similar, come first."""
    alike = [(candidate, similarity(text.shingles, candidate.shingles)) for candidate in candidates]
    twins = [(candidate, alike) for candidate, alike in alike if alike >= least]
    return sorted(twins, key=lambda twin: (not twin[0].asked, -twin[1]))[:_LINKS]
