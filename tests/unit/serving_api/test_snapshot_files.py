"""Snapshots in a folder: their bytes, their names, and leftovers of failed writers."""

import errno
import fcntl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pyarrow import parquet

from core.web.problems import Conflict, InvalidFields, NotFound, Unavailable
from serving_api.snapshots import storage, writer
from serving_api.snapshots.manifest import MANIFEST, SnapshotManifest
from serving_api.snapshots.repository import Difference
from serving_api.snapshots.writer import SplitWriter
from tests.unit.serving_api.snapshot_world import Row, World, world

_ROWS = [Row(number, ["toxic", "non_toxic", None][number % 3], text=f"text {number}") for number in range(900)]


@pytest.fixture
def labelled(tmp_path: Path) -> Iterator[World]:
    with world(tmp_path) as one:
        one.hold(_ROWS)
        yield one


@pytest.mark.parametrize("stratify", [False, True])
def test_the_same_rows_in_another_replica_are_the_same_bytes(
    labelled: World, tmp_path: Path, stratify: bool
) -> None:
    first = labelled.create(stratify=stratify).manifest
    with world(tmp_path / "other") as other:
        other.hold(_ROWS[::-1])  # they lie the other way round, and come in other batches
        second = other.create(stratify=stratify, name="second").manifest
        assert labelled.files(first.name) == other.files("second")
    assert (first.content_hash, first.splits) == (second.content_hash, second.splits)


def test_the_same_request_is_answered_by_the_same_snapshot(labelled: World) -> None:
    made = labelled.create()
    again = labelled.create()
    assert (made.is_new, again.is_new) == (True, False)
    assert made.manifest == again.manifest
    assert made.manifest.name.startswith("toxicity-2-")
    labelled.hold(_ROWS)  # another version
    assert labelled.create().is_new


def test_a_name_is_used_once(labelled: World) -> None:
    first = labelled.create(name="one").manifest
    assert not labelled.create(name="one").is_new
    with pytest.raises(Conflict, match="already"):
        labelled.create(name="one", seed=1)
    labelled.hold(_ROWS)
    with pytest.raises(Conflict, match="already"):
        labelled.create(name="one")
    assert labelled.snapshots.list() == [first]


def test_nothing_is_no_snapshot(labelled: World) -> None:
    with pytest.raises(Conflict) as refusal:
        labelled.create(source="nowhere")
    assert refusal.value.code == "no_texts"
    assert labelled.snapshots.list() == []


def test_files_can_be_read_in_part(labelled: World) -> None:
    manifest = labelled.create(splits={"train": 1}).manifest
    with labelled.snapshots.storage.open(manifest.name, manifest.splits["train"].path) as file:
        metadata = parquet.ParquetFile(file).metadata
    id_ = metadata.row_group(0).column(metadata.schema.names.index("id"))
    assert (id_.compression, id_.has_offset_index, id_.has_column_index) == ("ZSTD", True, True)
    assert id_.bloom_filter_offset is not None
    assert metadata.row_group(0).column(metadata.schema.names.index("label")).statistics.has_min_max
    assert metadata.num_rows == manifest.splits["train"].rows == len(_ROWS)


def test_long_texts_make_short_row_groups(labelled: World) -> None:
    labelled.hold([Row(number, text="x" * 60_000) for number in range(600)])
    manifest = labelled.create(splits={"train": 1}).manifest
    with labelled.snapshots.storage.open(manifest.name, manifest.splits["train"].path) as file:
        assert parquet.ParquetFile(file).num_row_groups == 2


_NO_NAMES = [
    *("..", ".", "", "../one", "..%2fone", "/etc", "one/../one", "one/data", "one/", "./one", "one\0", "one\n"),
    *(".writing-1", "ö", "x" * 101, "a..b", "one ", "\u202eone", "-one", "C:\\x", "~root", "one?x", "s3://x"),
]


def test_a_name_is_no_path(labelled: World) -> None:
    labelled.create(name="one")
    for name in _NO_NAMES:
        with pytest.raises(NotFound, match="of this name"):
            labelled.snapshots.get(name)
        with pytest.raises(NotFound, match="of this name"):
            labelled.snapshots.storage.open(name, "data/train.parquet")
        with pytest.raises(InvalidFields, match="/name"):
            labelled.create(name=name)


def test_a_full_disk_leaves_nothing(labelled: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    for module, name in ((SplitWriter, "finish"), (storage, "_sync")):
        with monkeypatch.context() as patch:
            patch.setattr(module, name, fail)
            with pytest.raises(Unavailable) as refusal:
                labelled.create()
        assert refusal.value.code == "storage_full"
    assert [one.name for one in Path(labelled.snapshots.storage.root).iterdir()] == [".lock"]
    assert labelled.create().is_new


def test_what_dead_writers_left_is_removed(labelled: World) -> None:
    root = Path(labelled.snapshots.storage.root)
    (root / ".writing-dead" / "data").mkdir(parents=True)
    (root / "half" / "data").mkdir(parents=True)  # as a bucket's, without its manifest
    (root / "rubbish").mkdir()
    (root / "rubbish" / MANIFEST).write_text("{}")
    assert labelled.snapshots.list() == []
    labelled.create(name="one")
    assert not (root / ".writing-dead").exists()
    assert [one.name for one in labelled.snapshots.list()] == ["one"]


def test_one_is_written_at_a_time_also_by_other_processes(labelled: World) -> None:
    root = Path(labelled.snapshots.storage.root)
    root.mkdir(parents=True)
    with (root / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # another open file, as another process has
        with pytest.raises(Unavailable, match="being written"):
            labelled.create()
    assert labelled.create().is_new


def _model(before: dict[str, Any], after: dict[str, Any]) -> tuple[int, int, int, int]:
    both = before.keys() & after.keys()
    return (
        len(after.keys() - before.keys()),
        len(before.keys() - after.keys()),
        sum(before[id_][0] != after[id_][0] for id_ in both),
        sum(before[id_][1] != after[id_][1] for id_ in both),
    )


def _contents(labelled: World, manifest: SnapshotManifest) -> dict[str, Any]:
    rows = ((row, name) for name in manifest.splits for row in labelled.rows(manifest, name))
    return {row["id"]: (row["label"], name) for row, name in rows}


def _all_pages(labelled: World, before: SnapshotManifest, after: SnapshotManifest) -> Difference:
    found = labelled.snapshots.differ.compare(before, after, None, 100)
    page = found
    while len(page.items) == 100:
        page = labelled.snapshots.differ.compare(before, after, page.items[-1]["id"], 100)
        found.items.extend(page.items)
    return found


def test_a_diff_is_what_a_plain_comparison_says(labelled: World) -> None:
    one = labelled.create(name="one").manifest
    changed = [Row(row.number, "toxic" if row.number % 7 == 0 else row.label) for row in _ROWS[200:]]
    labelled.hold([*changed, *(Row(number) for number in range(5000, 5100))])
    other = labelled.create(name="other", seed=1).manifest
    before, after = _contents(labelled, one), _contents(labelled, other)
    found = _all_pages(labelled, one, other)
    assert (found.added, found.removed, found.relabelled, found.moved) == _model(before, after)
    assert found.moved > 0
    differing = {id_ for id_ in before.keys() | after.keys() if before.get(id_) != after.get(id_)}
    assert [str(item["id"]) for item in found.items] == sorted(differing)
    for item in found.items:
        assert (item["label_before"], item["split_before"]) == before.get(str(item["id"]), (None, None))
        assert (item["label_after"], item["split_after"]) == after.get(str(item["id"]), (None, None))


def test_texts_can_be_taken_out(labelled: World) -> None:
    old = labelled.create(name="one", stratify=True).manifest
    before = _contents(labelled, old)
    gone = [id_ for id_, (_, split) in before.items() if split == "train"][:3]
    with labelled.snapshots.storage.open("one", old.splits["train"].path) as reading:
        new = labelled.snapshots.rewrite("one", {*gone, "not in it"})
        assert len(parquet.read_table(reading)) == old.splits["train"].rows  # who reads it reads on
    assert labelled.snapshots.get("one") == new
    assert new.rewritten_at
    assert new.content_hash != old.content_hash
    assert new.splits["test"] == old.splits["test"]
    assert _contents(labelled, new) == {id_: held for id_, held in before.items() if id_ not in gone}
    everything = b"".join(labelled.files("one").values())
    assert old.splits["train"].path not in labelled.files("one")
    assert everything
    assert labelled.snapshots.rewrite("one", {*gone}) == new


def test_a_rewriting_that_was_killed_leaves_the_old_one_and_no_rest(labelled: World) -> None:
    old = labelled.create(name="one").manifest
    data = Path(labelled.snapshots.storage.root) / "one" / "data"
    (data / "train-0123456789ab.parquet").write_bytes(b"half")
    assert labelled.snapshots.get("one") == old
    labelled.snapshots.rewrite("one", {"x"})
    assert {one.name for one in data.iterdir()} == {"test.parquet", "train.parquet", "validation.parquet"}
    assert (data.parent / MANIFEST).exists()


def test_a_deleted_snapshot_is_gone_at_once_and_its_name_is_free(labelled: World) -> None:
    root = Path(labelled.snapshots.storage.root)
    first = labelled.create(name="one", stratify=True).manifest
    second = labelled.create(name="two", stratify=True, min_agreement=0.1).manifest
    assert second.follows == ("one",)
    with labelled.snapshots.storage.open("one", first.splits["train"].path) as file:
        labelled.snapshots.delete("one")
        # Who has a file open reads on.
        assert parquet.ParquetFile(file).metadata.num_rows == first.splits["train"].rows
    assert sorted(path.name for path in root.iterdir()) == [".lock", "two"]
    with pytest.raises(NotFound):
        labelled.snapshots.get("one")
    with pytest.raises(NotFound):
        labelled.snapshots.delete("one")
    # The rest stays unchanged and can be read.
    assert labelled.snapshots.list() == [second]
    assert len(labelled.splits(second)) == len(_ROWS)
    assert labelled.create(name="one", stratify=True).manifest.follows == ("two",)


def test_only_snapshots_are_deleted(labelled: World) -> None:
    labelled.create(name="one")
    (Path(labelled.snapshots.storage.root) / "other").mkdir()
    for name in (*_NO_NAMES, "other", ".lock"):
        with pytest.raises(NotFound):
            labelled.snapshots.delete(name)
    assert [one.name for one in labelled.snapshots.list()] == ["one"]


def test_a_deletion_that_dies_leaves_all_or_nothing(labelled: World, monkeypatch: pytest.MonkeyPatch) -> None:
    root = Path(labelled.snapshots.storage.root)
    manifest = labelled.create(name="one").manifest

    def die(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", die)
        with pytest.raises(KeyboardInterrupt):
            labelled.snapshots.delete("one")
    assert labelled.snapshots.list() == [manifest]
    with monkeypatch.context() as patch:
        patch.setattr(writer, "remove", lambda _: None)  # killed before it removes the files
        labelled.snapshots.delete("one")
    assert labelled.snapshots.list() == []
    assert list(root.glob(".writing-*/one/data/train.parquet"))
    labelled.create(name="two")
    assert sorted(path.name for path in root.iterdir()) == [".lock", "two"]


def _size(manifest: SnapshotManifest) -> int:
    return sum(split.bytes for split in manifest.splits.values())


@pytest.mark.parametrize("limit", ["snapshots_max", "snapshots_max_bytes"])
def test_there_are_as_many_snapshots_as_may_be(labelled: World, tmp_path: Path, limit: str) -> None:
    size = _size(labelled.create().manifest)
    most = 2 if limit == "snapshots_max" else 2 * size + size // 2
    with world(tmp_path / "limited", None, **{limit: most}) as limited:
        limited.hold(_ROWS)
        limited.create(name="one")
        limited.create(name="two", seed=1)
        assert not limited.create(name="one").is_new  # what is there is found
        with pytest.raises(Conflict) as refusal:
            limited.create(name="three")
        assert refusal.value.code == "snapshot_quota"
        assert limit.upper() in refusal.value.detail
        assert "DELETE /snapshots/{name}" in refusal.value.detail
        assert "The oldest is one;" in refusal.value.detail
        root = Path(limited.snapshots.storage.root)
        assert sorted(path.name for path in root.iterdir()) == [".lock", "one", "two"]
        limited.snapshots.delete("one")
        assert limited.create(name="three").is_new


def test_a_disk_that_is_nearly_full_gets_no_more_snapshots(tmp_path: Path) -> None:
    with world(tmp_path, snapshots_min_free_bytes=2**60) as full:
        full.hold(_ROWS)
        with pytest.raises(Unavailable) as refusal:
            full.create(name="one")
        assert refusal.value.code == "storage_full"
        assert full.snapshots.list() == []
