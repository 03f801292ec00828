"""Links new texts with their near duplicates, and holds back those that annotators need not see.

The database work is a generator that yields statements and is sent their rows: single POSTs run it on an
asynchronous connection, bulk uploads on a synchronous one.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from typing import Any, NamedTuple
from uuid import UUID

from psycopg import AsyncConnection, Cursor

from core.datasets import Datasets
from core.models.texts import ASKED, near_duplicates_lock
from ingestion_api.enrichment.similarity import BAND_TEXTS, Known, NewKnown, decide, most_shared, shingles

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
