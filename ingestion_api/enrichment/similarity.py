"""Near duplicates: shingles, their Jaccard similarity, and MinHash bands that find candidates.

Bands are stored. With another fold, seed or number of bands, or another version of rensa's algorithm, new texts
do not find those stored before: a test compares fixed vectors. The fold has changed once. Texts stored before have
bands of the first fold, so a new text looks for its bands of both folds (`sought`).
"""

import re
import unicodedata
from collections import Counter, defaultdict
from dataclasses import dataclass
from hashlib import blake2b
from typing import TypeVar
from uuid import UUID

import re2
from rensa import RMinHash

from core.datasets import Dataset
from core.text_identity import IGNORABLE

_SHINGLE_CHARACTERS = 5
# 16 bands of 4: of pairs with Jaccard similarity 0.7 98.8 % share a band, with 0.8 99.98 %, with 0.2 2.5 %.
_BANDS = 16
_BAND_ROWS = 4
_SEED = 20260101

_BASIC_PLANE = 0x10000


# Combining classes of accents, overlays, and of Hebrew and Arabic points: a word is the same without them. The
# other classes are parts of letters: vowel signs (0, 84 to 132), nukta (7), kana voicing (8) and virama (9).
_ACCENTS = frozenset({1, *range(10, 37), *range(200, 241)})
_IGNORABLE = re.compile(f"[{IGNORABLE}]")
# A mark of another script on a Latin, Greek, Cyrillic or Armenian letter is decoration.
_DECORATED = re2.compile(r"([\x{0}-\x{58f}])\pM+")


class _Fold(dict[int, int | None]):
    """For `str.translate`: removes accents, and puts a space for punctuation, white space and control characters.

    Keeps letters, other marks, digits and symbols: emoji distinguish texts.
    """

    def __missing__(self, code: int) -> int | None:
        character = chr(code)
        category = unicodedata.category(character)
        folded: int | None = code
        if category[0] in "PZC":
            folded = ord(" ")
        elif category == "Me" or unicodedata.combining(character) in _ACCENTS:
            folded = None
        if code < _BASIC_PLANE:  # the others are rare, and too many to cache
            self[code] = folded
        return folded


class _FirstFold(dict[int, int]):
    """The fold of the first version, which kept accents and split words at invisible characters."""

    def __missing__(self, code: int) -> int:
        return ord(" ") if unicodedata.category(chr(code))[0] in "PZC" else code


_FOLD = _Fold()
_FIRST_FOLD = _FirstFold()

Shingles = frozenset[str]


def shingles(text: str) -> Shingles:
    """Return all runs of 5 characters of the text without case, accents, punctuation and invisible characters.

    A shorter text is one shingle. Characters rather than words, since not every language puts spaces between them.
    Empty for a text of punctuation only: such a text has no twins.
    """
    return _runs(_fold(text))


def _fold(text: str) -> str:
    if text.isascii():
        return text.casefold().translate(_FOLD)
    parts = unicodedata.normalize("NFKD", _IGNORABLE.sub("", text)).casefold()
    parts = _IGNORABLE.sub("", unicodedata.normalize("NFKD", parts))  # the Hangul filler is one only in this form
    return unicodedata.normalize("NFC", _DECORATED.sub(r"\1", parts).translate(_FOLD))


def first_shingles(text: str) -> Shingles | None:
    """Return the shingles that the first version stored bands of; None if they are those of `shingles`."""
    folded = unicodedata.normalize("NFKC", text).casefold().translate(_FIRST_FOLD)
    return None if text.isascii() or folded == _fold(text) else _runs(folded)


def _runs(folded: str) -> Shingles:
    plain = " ".join(folded.split())
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


# A band that a million texts share names only the first of them.
BAND_TEXTS = 20
CANDIDATES = 20
_LINKS = 10

Key = TypeVar("Key")
Link = tuple[UUID, UUID, float]  # the later text, its twin, their similarity


@dataclass(slots=True)
class Known:
    """A candidate; `asked`: annotators see it, or will."""

    id: UUID
    shingles: Shingles
    asked: bool


class NewKnown(Known):
    """A text that was just stored."""

    __slots__ = ("bands", "dataset", "sought")

    def __init__(self, id_: UUID, dataset: str, text: str) -> None:
        """`bands` are stored; candidates are found by those in `sought`."""
        super().__init__(id_, shingles(text), asked=True)
        self.dataset = dataset
        self.bands = bands(dataset, self.shingles)
        first = first_shingles(text)
        self.sought = self.bands if first is None else [*self.bands, *bands(dataset, first)]


def most_shared(counts: Counter[Key]) -> list[Key]:
    """Return the candidates that share the most bands."""
    return [candidate for candidate, _ in counts.most_common(CANDIDATES)]


def decide(
    group: list[NewKnown],
    shared: dict[UUID, Counter[UUID]],
    known: dict[UUID, Known],
    datasets: dict[str, Dataset],
) -> tuple[list[Link], set[UUID]]:
    """Compare each new text with stored ones and with those before it in the group.

    `shared` counts the bands that a new text shares with stored ones; `known` has the best candidates. Return the
    links found, and the texts held back.
    """
    links: list[Link] = []
    held: set[UUID] = set()
    before: defaultdict[int, list[int]] = defaultdict(list)  # places in the group by band
    for place, text in enumerate(group):
        here = Counter(other for band in text.bands for other in before[band])
        candidates = [known[id_] for id_ in most_shared(shared[text.id])]
        candidates += [group[other] for other in most_shared(here)]
        twins = _twins(text, candidates, datasets[text.dataset].near_duplicate_similarity)
        links += [(text.id, twin.id, alike) for twin, alike in twins]
        if datasets[text.dataset].near_duplicates == "ask_once" and any(twin.asked for twin, _ in twins):
            text.asked = False
            held.add(text.id)
        for band in text.bands:
            if len(before[band]) < BAND_TEXTS:
                before[band].append(place)
    return links, held


def _twins(text: Known, candidates: list[Known], least: float) -> list[tuple[Known, float]]:
    """Return the near duplicates among the candidates: first those with `asked`, then the most similar."""
    alike = [(candidate, similarity(text.shingles, candidate.shingles)) for candidate in candidates]
    twins = [(candidate, alike) for candidate, alike in alike if alike >= least]
    return sorted(twins, key=lambda twin: (not twin[0].asked, -twin[1]))[:_LINKS]
