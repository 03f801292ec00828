"""Links new texts with their near duplicates, and holds back those that annotators need not see.

Shingles and their Jaccard similarity decide; MinHash bands find candidates. Bands are stored. With another fold,
seed or number of bands, or another version of rensa's algorithm, new texts do not find those stored before: a test
compares fixed vectors. The fold has changed once. Texts stored before have bands of the first fold, so a new text
looks for its bands of both folds (`sought`).

The database work is a generator that yields statements and is sent their rows: single POSTs run it on an
asynchronous connection, bulk uploads on a synchronous one.
"""

import asyncio
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, NamedTuple, TypeVar
from uuid import UUID

import re2
from psycopg import AsyncConnection, Cursor
from rensa import RMinHash

from core.datasets import Dataset, Datasets
from core.models.texts import ASKED, near_duplicates_lock
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


_LOCK_DATASETS = f"select {near_duplicates_lock('name')} from unnest(%s::text[]) as names (name)"  # noqa: S608 - constants only

_FIND_CANDIDATES = f"""
    select wanted.id, found.text_id, count(*)
    from unnest(%s::uuid[], %s::int8[]) as wanted (id, band)
    cross join lateral (
        select text_id from near_duplicate_bands as known
        where known.band = wanted.band order by place limit {BAND_TEXTS}
    ) as found
    group by wanted.id, found.text_id
"""  # noqa: S608 - constants only

_READ_TEXTS = "select id, text, status = any(%s) from texts where id = any(%s)"

_INSERT_LINKS = """
    insert into near_duplicates (text_id, twin_id, similarity)
    select * from unnest(%s::uuid[], %s::uuid[], %s::float8[])
"""

# pending -> near_duplicate: annotators get its near duplicate
_HOLD_BACK = "update texts set status = 'near_duplicate' where id = any(%s)"

_INSERT_BANDS = """
    insert into near_duplicate_bands (band, text_id)
    select band, id from unnest(%s::uuid[], %s::int8[]) with ordinality as new (id, band, place) order by place
"""

# A group is small enough for the memory, and large enough to share statements.
_GROUP_TEXTS = 250
_GROUP_CHARACTERS = 262_144

Statement = tuple[str, Sequence[Any]]
Statements = Generator[Statement, list[Any] | None, set[UUID]]


class StoredText(NamedTuple):
    """A text that the transaction has inserted."""

    id: UUID
    dataset: str
    text: str


def linked_datasets(datasets: Datasets) -> frozenset[str]:
    """Return the names of the datasets whose near duplicates are linked."""
    return frozenset(name for name, dataset in datasets.items() if dataset.near_duplicates != "off")


def lock(names: Iterable[str]) -> Statements:
    """Lock these datasets until the transaction ends: no other transaction stores texts of them."""
    # In order of name: two transactions cannot deadlock.
    yield _LOCK_DATASETS, [sorted(names)]
    return set()


def link(texts: Iterable[StoredText], datasets: Datasets) -> Statements:
    """Link new texts with stored ones and with each other; return the ids of those held back.

    The transaction must hold the lock of their datasets, and have inserted them.
    """
    held: set[UUID] = set()
    for group in _groups(texts):
        held |= yield from _link_group(group, datasets)
    return held


def run(statements: Statements, cursor: Cursor[Any]) -> set[UUID]:
    """Run the statements on a plain cursor; returns what they return."""
    statement, held = _advance(statements, None)
    while statement:
        cursor.execute(*statement)
        statement, held = _advance(statements, cursor.fetchall() if cursor.description else [])
    return held


async def run_async(statements: Statements, connection: AsyncConnection) -> set[UUID]:
    """Run the statements on an asynchronous connection; return the result of the generator."""
    # In a thread: comparing long texts between two statements may take a second.
    statement, held = await asyncio.to_thread(_advance, statements, None)
    while statement:
        cursor = await connection.execute(*statement, binary=True)
        rows = await cursor.fetchall() if cursor.description else []
        statement, held = await asyncio.to_thread(_advance, statements, rows)
    return held


def _advance(statements: Statements, rows: list[Any] | None) -> tuple[Statement | None, set[UUID]]:
    """Return the next statement, or None and the result of the generator."""
    try:
        return statements.send(rows), set()
    except StopIteration as end:
        return None, end.value


def _groups(texts: Iterable[StoredText]) -> Iterator[list[StoredText]]:
    group: list[StoredText] = []
    characters = 0
    for text in texts:
        group.append(text)
        characters += len(text.text)
        if len(group) == _GROUP_TEXTS or characters > _GROUP_CHARACTERS:
            yield group
            group, characters = [], 0
    if group:
        yield group


def _link_group(group: list[StoredText], datasets: Datasets) -> Statements:
    new = [NewKnown(*text) for text in group]
    shared: dict[UUID, Counter[UUID]] = {text.id: Counter() for text in new}
    for id_, stored, count in (yield _FIND_CANDIDATES, _columns(new, lambda text: text.sought)) or []:
        shared[id_][stored] = count
    candidates = {stored for counts in shared.values() for stored in most_shared(counts)}
    rows = (yield _READ_TEXTS, [list(ASKED), list(candidates)]) if candidates else []
    known = {id_: Known(id_, shingles(text), asked) for id_, text, asked in rows or []}
    links, held = decide(new, shared, known, datasets)
    if links:
        yield _INSERT_LINKS, [list(column) for column in zip(*links, strict=True)]
    if held:
        yield _HOLD_BACK, [list(held)]
    yield _INSERT_BANDS, _columns(new, lambda text: text.bands)
    return held


def _columns(new: list[NewKnown], bands: Callable[[NewKnown], list[int]]) -> list[list[Any]]:
    pairs = [(text.id, band) for text in new for band in bands(text)]
    return [[id_ for id_, _ in pairs], [band for _, band in pairs]]
