"""The file in use after a kill at any time, and the files shared with other processes."""

import os
import threading
import time
from pathlib import Path

import pytest

from serving_api.replica.file import ReplicaFile
from serving_api.replica.folder import ReplicaFolder, building_turn, claim
from serving_api.settings import ReplicaSettings


@pytest.fixture
def folder(tmp_path: Path) -> ReplicaFolder:
    return ReplicaFolder(tmp_path, tmp_path, ReplicaSettings())


def mark(file: ReplicaFile, identity: str) -> None:
    with file.transaction() as cursor:
        cursor.execute("insert into state values (?, 0, 0, now()::timestamp, 0)", [identity])


def marks(file: ReplicaFile) -> list[str]:
    with file.transaction("read only") as cursor:
        return [row[0] for row in cursor.execute("select identity from state").fetchall()]


def test_newest_complete_file_is_used_and_leftovers_go(folder: ReplicaFolder, tmp_path: Path) -> None:
    old = folder.open()
    mark(old, "old")
    building = folder.begin()
    mark(building, "new")
    new = folder.put_in_place(building)
    mark(folder.begin(), "unfinished")
    (tmp_path / "replica.building.tmp").mkdir()
    old.close()
    new.close()
    # As a kill leaves it: the old one not removed yet, the next one begun.
    again = ReplicaFolder(tmp_path, tmp_path, ReplicaSettings()).open()
    assert marks(again) == ["new"]
    assert sorted(file.name for file in tmp_path.iterdir()) == ["replica-1.duckdb"]
    again.close()


def test_killed_before_the_next_file_has_its_name_the_old_one_is_used(
    folder: ReplicaFolder, tmp_path: Path
) -> None:
    old = folder.open()
    mark(old, "old")
    building = folder.begin()
    mark(building, "new")
    building.finish()
    old.close()
    again = ReplicaFolder(tmp_path, tmp_path, ReplicaSettings()).open()
    assert marks(again) == ["old"]
    again.close()


def test_last_reader_removes_a_file_that_was_given_up(folder: ReplicaFolder) -> None:
    file = folder.open()
    with file.cursor() as first:
        with file.cursor() as second:
            file.retire()
            assert second.execute("select 1").fetchall() == [(1,)]
        assert file.path.exists()
        assert first.execute("select 1").fetchall() == [(1,)]
    assert not file.path.exists()
    assert file.closed


def test_seed_is_a_copy_that_is_offered_for_a_while(folder: ReplicaFolder, tmp_path: Path) -> None:
    assert folder.begin_from_seed() is None
    building = folder.begin()
    mark(building, "built")
    folder.make_seed(building)
    mine = folder.put_in_place(building)
    other = ReplicaFolder(tmp_path / "2", tmp_path, ReplicaSettings())
    (tmp_path / "2").mkdir()
    folder.drop_old_seed()
    copy = other.begin_from_seed()
    assert copy is not None
    assert marks(copy) == ["built"]
    mark(mine, "changed")
    assert marks(copy) == ["built"]
    mine.close()
    other.discard(copy)
    seed = tmp_path / "seed.duckdb"
    os.utime(seed, (0, time.time() - 3600))
    folder.drop_old_seed()
    assert not seed.exists()


def test_damaged_seed_is_not_used(folder: ReplicaFolder, tmp_path: Path) -> None:
    (tmp_path / "seed.duckdb").write_bytes(b"noise" * 10_000)
    assert folder.begin_from_seed() is None
    assert not (tmp_path / "seed.duckdb").exists()


def test_each_process_gets_the_first_free_folder(tmp_path: Path) -> None:
    claimed = [claim(tmp_path, 3) for _ in range(3)]
    assert [path for path, _ in claimed] == [tmp_path, tmp_path / "2", tmp_path / "3"]
    with pytest.raises(SystemExit, match="SERVING_PROCESSES"):
        claim(tmp_path, 3)
    claimed[1][1].close()  # as the system does when a process dies
    path, lock = claim(tmp_path, 3)
    assert path == tmp_path / "2"
    for one in (claimed[0][1], claimed[2][1], lock):
        one.close()


def test_one_builds_at_a_time_and_waiting_can_be_stopped(tmp_path: Path) -> None:
    stopping = threading.Event()
    with building_turn(tmp_path, stopping) as mine:
        assert mine
        stopping.set()
        with building_turn(tmp_path, stopping) as theirs:
            assert not theirs
    with building_turn(tmp_path, stopping) as mine:
        assert mine
