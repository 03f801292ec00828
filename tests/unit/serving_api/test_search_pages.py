"""The index and the replica together against a plain model, while labels come, change and go."""

import asyncio
import json
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.datasets import load_datasets
from serving_api.replica import repository
from serving_api.replica.query_pool import AnswerCache, Answers, QueryPool
from serving_api.search import index
from serving_api.search.follower import SearchFollower
from serving_api.search.repository import list_hits
from serving_api.texts import paging
from serving_api.texts.matching import Match
from serving_api.texts.paging import Hints
from serving_api.texts.parameters import Order, TextsParameters
from serving_api.texts.query import PageQuery, Position, page_query
from serving_api.texts.service import Texts
from tests.unit.serving_api.search_world import World, made_world, model_matches, searches, texts

_MEMORY = "/dev/shm"  # noqa: S108
ORDERS = st.sampled_from(["newest", "oldest", "relevance"])
TIME_ORDERS = st.sampled_from(["newest", "oldest"])
LABELS = st.sampled_from(["toxic", "non_toxic"])
SOURCES = st.sampled_from(["forum", "mail", None])
ITEMS = st.lists(st.tuples(texts(), LABELS, SOURCES, st.integers(0, 6)), min_size=1, max_size=25)


@dataclass
class Searched:
    """A world with its index."""

    world: World
    follower: SearchFollower
    scans: bool  # also answer without the index

    def page(self, page: PageQuery) -> list[dict[str, Any]]:
        """Return a page, and check that reading all texts gives the same."""
        with self.world.replica.reading() as cursor:
            snapshot = self.follower.snapshot_or_none(repository.get_point(cursor))
            assert snapshot is not None
            found = list_hits(cursor, page, page.limit, snapshot, time.monotonic() + 20)
            if self.scans:
                assert list_hits(cursor, page, page.limit, None, time.monotonic() + 20) == found
        return found

    def walk(self, parameters: dict[str, Any]) -> Iterator[list[dict[str, Any]]]:
        """Give page after page."""
        page = page_query(TextsParameters(**parameters), parameters.get("label", []), load_datasets(None))
        while found := self.page(page):
            yield found
            page = PageQuery(page.texts, page.limit, Position(found[-1]["rank"], found[-1]["id"]))


@contextmanager
def searched(*, scans: bool = True) -> Iterator[Searched]:
    # In memory where that can be had: each commit of the index waits for the disk.
    path = Path(tempfile.mkdtemp(dir=_MEMORY if Path(_MEMORY).is_dir() else None))
    try:
        with made_world(path) as world:
            yield Searched(world, SearchFollower(world.replica), scans)
    finally:
        shutil.rmtree(path)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of a few texts: searches go through all their steps."""
    monkeypatch.setattr(index, "BLOCK_TEXTS", 2)


def expected(world: World, parameters: dict[str, Any]) -> list[UUID]:
    """Return what a plain model lists."""
    q = parameters.get("q")
    hits = [
        item
        for item in world.held.values()
        if (q is None or model_matches(item.text, q, Match(parameters["match"])))
        and item.label in parameters.get("label", [item.label])
        and parameters.get("source") in {None, item.source}
    ]
    newest = sorted(hits, key=lambda item: (item.labelled_at, -item.id.int), reverse=True)
    return [item.id for item in (reversed(newest) if parameters["order"] == "oldest" else newest)]


def draw_parameters(data: st.DataObject, world: World) -> dict[str, Any]:
    held = [item.text for item in world.held.values()] or ["x"]
    if data.draw(st.integers(0, 3)) == 0:
        return _draw_filters(data) | {"order": data.draw(TIME_ORDERS), "limit": data.draw(st.integers(1, 4))}
    q, match = data.draw(searches(held)), data.draw(st.sampled_from(Match))
    if not q.split():
        match = Match.SUBSTRING
    parameters = {"q": q, "match": match, "order": data.draw(ORDERS), "limit": data.draw(st.integers(1, 4))}
    return parameters | _draw_filters(data)


def _draw_filters(data: st.DataObject) -> dict[str, Any]:
    optional = {"label": st.lists(LABELS, min_size=1), "source": st.sampled_from(["forum", "mail", "none"])}
    return data.draw(st.fixed_dictionaries({}, optional=optional))


def change(world: World, data: st.DataObject) -> set[UUID]:
    """Change labels at random; return the texts that came, changed their label, or went."""
    touched: set[UUID] = set()
    for text, label, source, second in data.draw(
        st.lists(st.tuples(texts(), LABELS, SOURCES, st.integers(0, 9)), max_size=4)
    ):
        kind = data.draw(st.sampled_from(["add", "edit", "withdraw", "again"]))
        if kind == "add" or not world.held:
            id_ = UUID(int=data.draw(st.integers(0, 2**128 - 1)))
            if id_ not in world.held:
                world.add(id_, text, label, source, second)
        else:
            id_ = data.draw(st.sampled_from(sorted(world.held)))
            old = world.held[id_]
            if kind == "edit":
                world.edit(id_, label)
            else:
                world.withdraw(id_)
            if kind == "again":
                world.add(id_, old.text, label, old.source, second)
        touched.add(id_)
    return touched


@settings(max_examples=5)
@given(ITEMS, st.data())
def test_every_order_lists_what_the_model_lists(items: list[Any], data: st.DataObject) -> None:
    with searched() as it:
        for number, (text, label, source, second) in enumerate(items):
            # The same seconds, and ids that begin alike: the order within is the ids' alone.
            it.world.add(UUID(int=(number % 3 << 118) + number * 7919 % 31), text, label, source, second)
            if number == len(items) // 2:
                it.follower.follow()
        it.follower.follow()
        for _ in range(3):
            change(it.world, data)
            if data.draw(st.booleans()):
                it.follower.follow()
            parameters = draw_parameters(data, it.world)
            found = [row for page in it.walk(parameters) for row in page]
            wanted = expected(it.world, parameters)
            if parameters["order"] == "relevance":
                assert sorted(row["id"] for row in found) == sorted(wanted)
                places = [(-row["rank"], row["id"]) for row in found]
                assert places == sorted(places)
            else:
                assert [row["id"] for row in found] == wanted


@settings(max_examples=5)
@given(ITEMS, st.data())
def test_a_walk_shows_each_hit_once_while_labels_change(items: list[Any], data: st.DataObject) -> None:
    with searched() as it:
        for number, (text, label, source, second) in enumerate(items):
            it.world.add(UUID(int=number << 100), text, label, source, second)
        it.follower.follow()
        parameters = draw_parameters(data, it.world)
        stayed, seen = set(expected(it.world, parameters)), []
        for number, page in enumerate(it.walk(parameters)):
            seen += [row["id"] for row in page]
            if number < 6:
                stayed -= change(it.world, data)
            if data.draw(st.booleans()):
                it.follower.follow()
        # What lost its label and got one again is another hit, at another time.
        assert sorted(id_ for id_ in seen if id_ in stayed) == sorted(stayed)


@pytest.mark.parametrize("order", [Order.NEWEST, Order.OLDEST])
def test_rare_texts_are_listed_by_the_index_page_after_page(monkeypatch: pytest.MonkeyPatch, order: Order) -> None:
    monkeypatch.setattr(paging, "SPARSE_ROWS", 0)
    with searched() as it:
        for number in range(7):
            it.world.add(UUID(int=number), f"text {number}", "toxic" if number % 3 else "non_toxic", second=number)
        it.follower.follow()
        pool = QueryPool(it.world.replica, threads=1, queue=1, seconds=20)
        listed = Texts(Answers(it.world.replica, pool, AnswerCache(0)), pool, Hints(), it.follower)
        found: list[str] = []
        cursor = None
        while cursor or not found:
            parameters = TextsParameters(label=["toxic"], order=order, limit=2, cursor=cursor)
            page = asyncio.run(listed.page(page_query(parameters, parameters.label, load_datasets(None))))
            found += [item["text"] for item in json.loads(page.body)["items"]]
            cursor = page.next_cursor
        pool.close()
    expected = [f"text {number}" for number in (1, 2, 4, 5)]
    assert found == (expected if order is Order.OLDEST else expected[::-1])


def test_an_index_ahead_of_the_reader_is_not_asked() -> None:
    with searched() as it:
        it.world.add(UUID(int=1), "one")
        it.follower.follow()
        with it.world.replica.reading() as cursor:
            before = repository.get_point(cursor)
            it.world.withdraw(UUID(int=1))
            it.follower.follow()
            snapshot = it.follower.snapshot_or_none(before)
            assert snapshot is not None
            page = page_query(TextsParameters(q="one"), [], load_datasets(None))
            assert [row["text"] for row in list_hits(cursor, page, 1, snapshot, time.monotonic() + 9)] == ["one"]
        assert it.page(page) == []


def test_long_texts_and_searches_are_found() -> None:
    with searched() as it:
        long = "".join(chr(0x61 + n * n % 26) for n in range(70_000))
        it.world.add(UUID(int=1), long + " end")
        it.follower.follow()
        for parameters in (
            {"q": long[5:1005]},
            {"q": long[:1000], "match": "prefix"},
            {"q": "end", "match": "words"},
        ):
            page = page_query(TextsParameters(**parameters), [], load_datasets(None))
            assert len(it.page(page)) == 1


def test_the_best_of_many_are_ranked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index, "BLOCK_TEXTS", 200)
    with searched(scans=False) as it:
        with it.world.replica.file.transaction() as cursor:
            cursor.execute(
                """
                insert into items by name
                select md5(n::varchar)::uuid as id, 'toxicity' as dataset, 'bad ' || n as text, 'toxic' as label,
                       'labelled' as status, 1 as agreement, '{}' as votes, 1 as annotations, 'majority' as rule,
                       1 as rule_version, true as complete, 'annotators' as decided_by, '{}' as metadata,
                       '{}' as enrichment,
                       now()::timestamp as received_at, timestamp '2026-01-01' + to_seconds(n) as labelled_at,
                       1 as version, '' as annotators, '{"id":"' || id || '"}' as document
                from range(1500) t(n)
                """
            )
        it.follower.follow()
        found = [row for page in it.walk({"q": "bad", "order": "relevance", "limit": 500}) for row in page]
        assert len({row["id"] for row in found}) == 1000
        assert all(len(row["text"]) <= len("bad 999") for row in found)


def damage_nothing(_: Path) -> None: ...


def flip(path: Path) -> None:
    file = max(path.glob("*.idx"), key=lambda found: found.stat().st_size)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 0xFF
    file.write_bytes(content)


def truncate(path: Path) -> None:
    for file in path.glob("*.fast"):
        file.write_bytes(file.read_bytes()[:20])


def lose_a_file(path: Path) -> None:
    next(path.glob("*.term")).unlink()


def empty_meta(path: Path) -> None:
    (path / "meta.json").write_text("")


def lose_all(path: Path) -> None:
    shutil.rmtree(path)


def be_another(path: Path) -> None:
    (path / "meta.json").write_text('{"segments": [], "schema": [], "opstamp": 0, "index_settings": {}}')


@pytest.mark.parametrize("damage", [flip, truncate, lose_a_file, empty_meta, lose_all, be_another, damage_nothing])
def test_a_damaged_index_is_built_anew(tmp_path: Path, damage: Any, capsys: pytest.CaptureFixture[str]) -> None:
    with made_world(tmp_path) as world:
        world.add(UUID(int=1), "some words")
        first = SearchFollower(world.replica)
        first.follow()
        world.add(UUID(int=2), "more words")
        first.follow()
        first.close()
        damage(tmp_path / "search")
        capsys.readouterr()
        it = Searched(world, SearchFollower(world.replica), scans=True)
        it.follower.follow()
        page = page_query(TextsParameters(q="words"), [], load_datasets(None))
        assert len(it.page(page)) == 2
        assert ("search.building" in capsys.readouterr().out) == (damage is not damage_nothing)
