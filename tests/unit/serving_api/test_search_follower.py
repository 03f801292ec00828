"""How the search index follows the replica: what it takes over, and when it begins anew."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import UUID

import pytest
from structlog.testing import capture_logs

from serving_api.replica.repository import Point
from serving_api.search.follower import SearchFollower
from serving_api.search.index import Damaged, SearchIndex
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


def test_a_thread_goes_on_after_damage(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    follower = SearchFollower(world.replica)
    commit = SearchIndex.commit
    failures = [Damaged("broken")]

    def fail_once(*arguments: object) -> None:
        if failures:
            raise failures.pop()
        commit(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(SearchIndex, "commit", fail_once)
    follower.start()
    wait_for(lambda: follower.version == world.version)
    follower.stop(60)
