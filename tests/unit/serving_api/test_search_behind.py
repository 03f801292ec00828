"""How long the search index has been behind."""

import time
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import pytest

from core.web.problems import Unavailable
from serving_api.search.follower import SearchFollower
from tests.unit.serving_api.search_world import World, made_world


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with made_world(tmp_path) as world:
        world.add(UUID(int=1), "first")
        yield world


def test_the_time_counts_until_the_missing_version_is_indexed(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    search = SearchFollower(world.replica)
    search.follow()
    now = 200.0
    assert search.behind_seconds == 0
    world.add(UUID(int=2), "second")
    with monkeypatch.context() as broken:
        broken.setattr(world.replica, "reading", _refuse)
        with pytest.raises(Unavailable):
            search.follow()
        now = 203.0
        with pytest.raises(Unavailable):
            search.follow()
    now = 207.0
    assert search.behind_seconds == 7
    search.follow()
    assert search.behind_seconds == 0
    search.close()


def test_an_index_that_is_missing_is_behind(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    search = SearchFollower(world.replica)
    monkeypatch.setattr(world.replica, "reading", _refuse)
    with pytest.raises(Unavailable):
        search.follow()
    time.sleep(0.01)
    assert search.behind_seconds > 0
    search.close()


def _refuse() -> None:
    raise Unavailable("Not now.", code="replica_missing")
