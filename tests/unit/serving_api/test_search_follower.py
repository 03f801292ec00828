"""How the search index follows the replica: what it takes over, and when it begins anew."""

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import UUID

import pytest
from prometheus_client import REGISTRY
from structlog.testing import capture_logs

from core.datasets import load_datasets
from serving_api.replica.replica import Replica
from serving_api.replica.repository import Point, State, get_point
from serving_api.search.follower import SearchFollower
from serving_api.search.index import Damaged, SearchIndex
from serving_api.settings import ReplicaSettings
from serving_api.texts.parameters import TextsParameters
from serving_api.texts.query import page_query
from tests.unit.serving_api.search_world import World, made_world
from tests.waiting import wait_for

_ONE, _TWO = UUID(int=1), UUID(int=2)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """A replica with one text."""
    with made_world(tmp_path) as world:
        world.add(_ONE, "one")
        yield world


@pytest.fixture
def follower(world: World) -> SearchFollower:
    """It has followed the replica once."""
    follower = SearchFollower(world.replica)
    follower.follow()
    return follower


def _point(world: World) -> Point:
    return world.replica.loaded().point


def _events(follower: SearchFollower) -> list[str]:
    """Follow once more, and return the events that the log tells."""
    with capture_logs() as lines:
        follower.follow()
    return [line["event"] for line in lines]


def test_without_an_index_there_is_no_version(world: World) -> None:
    follower = SearchFollower(world.replica)
    assert (follower.version, follower.built) == (None, 0)
    assert follower.ask(_point(world), lambda _: "found") is None


def test_while_nothing_changes_the_index_stays_as_it_is(world: World, follower: SearchFollower) -> None:
    first = follower.snapshot_or_none(_point(world))
    assert first is not None
    assert _events(follower) == []
    assert follower.snapshot_or_none(_point(world)) is first


def test_it_takes_over_what_changed(world: World, follower: SearchFollower) -> None:
    built = follower.built
    world.add(_TWO, "two")
    assert _events(follower) == []
    assert (follower.version, follower.built) == (world.version, built)


def test_a_withdrawn_text_leaves_the_index(world: World, follower: SearchFollower) -> None:
    world.add(_TWO, "two")
    follower.follow()
    count = follower.ask(_point(world), lambda one: one.searcher.num_docs)
    world.withdraw(_TWO)
    follower.follow()
    assert count is not None
    assert follower.ask(_point(world), lambda one: one.searcher.num_docs) == count - 1


def _metric(name: str) -> float:
    return REGISTRY.get_sample_value(name) or 0


def _find(world: World, follower: SearchFollower, q: str) -> list[str]:
    page = page_query(TextsParameters(q=q), [], load_datasets(None))
    with world.replica.reading() as cursor:
        rows = follower.list_hits(cursor, get_point(cursor), page, 9, time.monotonic() + 60)
    return [row["text"] for row in rows]


def test_without_an_index_all_texts_are_read(world: World, follower: SearchFollower) -> None:
    scans = _metric("serving_search_scans_total")
    assert _find(world, follower, "on") == ["one"]
    assert _metric("serving_search_scans_total") == scans
    follower.close()
    assert _find(world, follower, "on") == ["one"]
    assert _metric("serving_search_scans_total") == scans + 1


def test_its_version_is_a_metric(world: World, follower: SearchFollower) -> None:
    world.add(_TWO, "two")
    follower.follow()
    assert _metric("serving_search_index_version") == world.version


def test_the_newest_four_versions_can_be_asked(world: World, follower: SearchFollower) -> None:
    points = [_point(world)]
    for number in range(2, 6):
        world.add(UUID(int=number), str(number))
        follower.follow()
        points.append(_point(world))
    asked = [follower.ask(point, lambda snapshot: snapshot.meta.version) for point in points]
    assert asked == [None, *(point.version for point in points[1:])]
    # A version that was not indexed is searched by the one before it.
    assert follower.ask(Point("db", points[-1].version + 9), lambda one: one.meta.version) == points[-1].version
    assert follower.ask(Point("another", points[-1].version), lambda one: one.meta.version) is None


@pytest.mark.parametrize(
    "change",
    [lambda world: world.rebuild(identity="another"), lambda world: world.rebuild(version=1)],
    ids=["of another database", "of an earlier version"],
)
def test_the_index_of_another_replica_is_begun_anew(
    world: World, follower: SearchFollower, change: Callable[[World], None]
) -> None:
    change(world)
    assert _events(follower) == ["search.stale", "search.building", "search.built"]
    assert follower.ask(_point(world), lambda one: one.meta.identity) == _point(world).identity
    assert _events(follower) == []


def test_after_a_text_was_forgotten_it_is_begun_anew_once_the_replica_was(
    world: World, follower: SearchFollower
) -> None:
    world.add(_TWO, "two")
    world.withdraw(_TWO, forgotten=True)
    forgotten = world.version
    # The replica's own file still has parts of the text.
    assert _events(follower) == []
    assert follower.built < forgotten
    world.rebuild()
    assert _events(follower) == ["search.forgetting", "search.building", "search.built"]
    assert follower.built > forgotten
    assert _events(follower) == []


def test_while_an_index_is_built_no_earlier_one_is_asked(
    world: World, follower: SearchFollower, monkeypatch: pytest.MonkeyPatch
) -> None:
    put, versions = SearchIndex.put, []

    def look_and_put(*arguments: object) -> None:
        versions.append(follower.version)
        put(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(SearchIndex, "put", look_and_put)
    world.rebuild(identity="another")
    follower.follow()
    assert versions == [None]
    assert follower.version == world.version


def test_a_damage_that_a_search_meets_makes_for_a_new_index(world: World, follower: SearchFollower) -> None:
    def fail(_: object) -> None:
        raise Damaged("broken")

    with capture_logs() as lines:
        assert follower.ask(_point(world), fail) is None
    assert [line["event"] for line in lines] == ["search.damaged"]
    assert follower.version is None
    # Its files are not opened again, though they look sound.
    assert _events(follower) == ["search.building", "search.built"]
    assert _events(follower) == []


def test_a_change_that_fails_halfway_is_taken_over_by_the_next_look(
    world: World, follower: SearchFollower, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = follower.version
    world.add(_TWO, "two")
    with monkeypatch.context() as patch:
        patch.setattr(SearchIndex, "commit", _raise_damaged)
        with pytest.raises(Damaged):
            follower.follow()
    assert follower.version == before
    world.withdraw(_TWO)
    follower.follow()
    assert follower.ask(_point(world), lambda one: one.searcher.num_docs) == 2  # a text, and the metadata


def _raise_damaged(*_: object) -> None:
    raise Damaged("no space")


def test_a_thread_follows_until_it_is_stopped(world: World) -> None:
    follower = SearchFollower(world.replica)
    follower.start()
    wait_for(lambda: follower.version == world.version)
    world.add(_TWO, "two")
    wait_for(lambda: follower.version == world.version)
    follower.stop(60)
    # Closed: it gives its files free.
    assert follower.version is None


def test_stopping_interrupts_a_build(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(2, 9):
        world.add(UUID(int=number), str(number))
    follower = SearchFollower(world.replica)
    put, entries, go_on = SearchIndex.put, [], threading.Event()

    def wait_and_put(*arguments: object) -> None:
        entries.append(arguments)
        go_on.wait()
        put(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(SearchIndex, "put", wait_and_put)
    follower.start()
    wait_for(lambda: bool(entries))
    follower.stop(0)
    go_on.set()
    with capture_logs() as lines:
        follower.stop(60)
    assert len(entries) == 1
    assert follower.version is None
    # To be stopped is no failure.
    assert lines == []


def test_a_thread_that_meets_damage_begins_a_new_index(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    follower = SearchFollower(world.replica)
    commit = SearchIndex.commit
    failures: list[Damaged] = []

    def fail_once(*arguments: object) -> None:
        if failures:
            raise failures.pop()
        commit(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(SearchIndex, "commit", fail_once)
    with capture_logs() as lines:
        follower.start()
        wait_for(lambda: follower.version == world.version)
        failures.append(Damaged("broken"))
        world.add(_TWO, "two")
        wait_for(lambda: follower.version == world.version)
        follower.stop(60)
    events = [line["event"] for line in lines if line["event"] != "search.unusable"]
    assert events == [*("search.building", "search.built"), "search.damaged", *("search.building", "search.built")]


def test_a_thread_waits_for_the_first_replica_without_complaint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replica = Replica(tmp_path / "replica.duckdb", ReplicaSettings(threads=1))
    replica.open()
    looks: list[None] = []

    def loaded() -> State:
        looks.append(None)
        return Replica.loaded(replica)

    monkeypatch.setattr(replica, "loaded", loaded)
    follower = SearchFollower(replica)
    with capture_logs() as lines:
        follower.start()
        wait_for(lambda: len(looks) > 1)
        follower.stop(60)
    replica.close()
    assert lines == []


def test_after_an_error_the_index_is_closed_and_tried_again_later(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    follower = SearchFollower(world.replica)

    def fail(*_: object) -> None:
        raise RuntimeError("unknown")

    with capture_logs() as lines:
        follower.start()
        wait_for(lambda: follower.version == world.version)
        monkeypatch.setattr(SearchIndex, "commit", fail)
        world.add(_TWO, "two")
        wait_for(lambda: follower.version is None)
        follower.stop(60)
    failures = [line for line in lines if line["event"] == "search.failed"]
    assert [(line["kind"], line["error"]) for line in failures] == [("RuntimeError", "unknown")]
