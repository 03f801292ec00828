"""Snapshots and models in a bucket, on a server that speaks S3."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import httpx
import pytest
from moto.server import ThreadedMotoServer
from pyarrow import parquet
from sqlalchemy import Engine

from core.classifiers.model_files import MODEL, ModelFiles
from core.web.problems import Conflict, NotFound, Problem, Unavailable
from serving_api.replica.file import open_readable
from serving_api.settings import ReplicaSettings
from serving_api.snapshots.manifest import MANIFEST
from serving_api.viewer.split_rows import Span
from serving_api.viewer.stored import StoredSnapshots
from serving_api.viewer.where import read_filter
from tests.integration.serving_api.conftest import Serve
from tests.integration.serving_api.modelling import store_model, train, wait_for_model
from tests.unit.serving_api.snapshot_world import Row, World, world

_ROWS = [Row(number, "toxic" if number % 2 else "non_toxic") for number in range(500)]


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (
            ("AWS_ENDPOINT_URL", f"http://{host}:{port}"),
            ("AWS_ACCESS_KEY_ID", "key"),
            ("AWS_SECRET_ACCESS_KEY", "secret"),
            ("AWS_DEFAULT_REGION", "us-east-1"),
        ):
            patch.setenv(name, value)
        httpx.put(f"http://{host}:{port}/bucket")
        yield "s3://bucket"
    server.stop()


@pytest.fixture
def labelled(tmp_path: Path, bucket: str) -> Iterator[World]:
    with world(tmp_path, f"{bucket}/{tmp_path.name}") as one:
        one.hold(_ROWS)
        yield one


def test_a_bucket_keeps_what_a_folder_does(labelled: World, tmp_path: Path) -> None:
    fs, root = labelled.snapshots.storage.fs, labelled.snapshots.storage.root
    made = labelled.create(name="one", stratify=True).manifest
    assert labelled.snapshots.list() == [made] == [labelled.snapshots.get("one")]
    assert not labelled.create(name="one", stratify=True).is_new
    with pytest.raises(Conflict):
        labelled.create(name="one")
    with world(tmp_path / "folder") as other:
        other.hold(_ROWS)
        local = other.create(name="one", stratify=True).manifest
    assert local.splits == made.splits
    assert len(labelled.splits(made)) == len(_ROWS)
    # Read in part.
    with labelled.snapshots.storage.open("one", made.splits["train"].path, cache_type="none") as file:
        file.seek(-4, 2)
        assert file.read() == b"PAR1"
    # Nothing is left of the writing.
    fs.invalidate_cache()
    assert sorted(path.removeprefix(f"{root}/one/") for path in fs.find(root)) == sorted(
        [
            MANIFEST,
            "README.md",
            "croissant.json",
            "facts.json",
            "near_duplicates.parquet",
            *(split.path for split in made.splits.values()),
        ]
    )
    assert [path.name for path in (tmp_path / "snapshots").iterdir()] == [".lock"]
    # Texts are taken out.
    gone = str(next(iter(labelled.splits(made))))
    new = labelled.snapshots.rewrite("one", {gone})
    assert labelled.snapshots.get("one") == new
    assert len(labelled.splits(new)) == len(_ROWS) - 1
    fs.invalidate_cache()
    assert len(fs.find(f"{root}/one/data")) == 3


def test_a_name_is_reserved_while_it_is_written(labelled: World, monkeypatch: pytest.MonkeyPatch) -> None:
    fs, root = labelled.snapshots.storage.fs, labelled.snapshots.storage.root

    def reserve(name: str, until: float) -> None:
        fs.pipe_file(f"{root}/{name}/writing.json", json.dumps({"until": until}).encode())
        fs.pipe_file(f"{root}/{name}/data/train.parquet", b"half")

    reserve("one", time.time() + 60)  # a writer elsewhere
    reserve("two", time.time() - 1)  # one that died
    assert labelled.snapshots.list() == []
    with pytest.raises(Unavailable, match="elsewhere"):
        labelled.create(name="one")
    fs.invalidate_cache()
    assert not fs.exists(f"{root}/two/data/train.parquet")
    assert labelled.create(name="two").is_new

    # One whose upload fails leaves nothing.
    def fail(*_: Any, **__: Any) -> None:
        raise OSError("connection lost")

    with monkeypatch.context() as patch:
        patch.setattr(fs, "put_file", fail)
        with pytest.raises(Unavailable) as refusal:
            labelled.create(name="three")
    assert refusal.value.code == "storage_unavailable"
    fs.invalidate_cache()
    assert fs.find(f"{root}/three") == []
    assert parquet.ParquetFile(labelled.snapshots.storage.open("two", "data/train.parquet")).metadata.num_rows > 0


def test_a_deletion_leaves_nothing_and_dies_between_all_and_nothing(
    labelled: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    fs, root = labelled.snapshots.storage.fs, labelled.snapshots.storage.root
    manifest = labelled.create(name="one").manifest
    remove = fs.rm_file

    def fail_at(number: int) -> None:
        calls = iter(range(number + 1))

        def remove_or_fail(path: str) -> None:
            if next(calls, None) == number:
                raise OSError("connection lost")
            remove(path)

        monkeypatch.setattr(fs, "rm_file", remove_or_fail)

    fail_at(0)
    with pytest.raises(Unavailable):
        labelled.snapshots.delete("one")
    assert labelled.snapshots.list() == [manifest]
    assert len(labelled.splits(manifest)) == len(_ROWS)
    fail_at(2)  # the manifest and another file are gone
    with pytest.raises(Unavailable):
        labelled.snapshots.delete("one")
    monkeypatch.setattr(fs, "rm_file", remove)
    assert labelled.snapshots.list() == []
    fs.invalidate_cache()
    assert fs.find(f"{root}/one/data")
    with pytest.raises(Unavailable, match="elsewhere"):  # its files may still be being removed
        labelled.create(name="one")
    fs.pipe_file(f"{root}/one/writing.json", json.dumps({"until": time.time() - 1}).encode())
    labelled.create(name="two")  # clears away what the dead one left
    fs.invalidate_cache()
    assert fs.find(f"{root}/one") == []
    labelled.snapshots.delete("two")
    fs.invalidate_cache()
    assert fs.find(root) == []
    with pytest.raises(NotFound):
        labelled.snapshots.delete("two")


def test_nobody_rewrites_what_is_being_deleted_elsewhere(labelled: World) -> None:
    fs, root = labelled.snapshots.storage.fs, labelled.snapshots.storage.root
    ids = labelled.splits(labelled.create(name="one").manifest)
    fs.pipe_file(f"{root}/one/writing.json", json.dumps({"until": time.time() + 60}).encode())
    for change in (
        lambda: labelled.snapshots.delete("one"),
        lambda: labelled.snapshots.rewrite("one", {str(next(iter(ids)))}),
    ):
        with pytest.raises(Unavailable, match="elsewhere"):
            change()
    assert len(labelled.splits(labelled.snapshots.get("one"))) == len(_ROWS)


def test_the_viewer_reads_files_in_a_bucket_and_tells_why_it_cannot(labelled: World, bucket: str) -> None:
    made = labelled.create(name="one", splits={"train": 1}).manifest
    storage, stored = labelled.snapshots.storage, StoredSnapshots(labelled.snapshots)
    manifest, file = stored.get_split("toxicity", "one", "train")
    with open_readable(ReplicaSettings(), storage.address, storage.fs) as files:
        with stored.opened(manifest, file, files) as split:
            rows = split.rows(Span(490, 20)).rows
            found = split.filter(read_filter("label = 'toxic'", None, split.columns), Span(0, 1))
        assert [row.values[0] for row in rows] == [row["id"] for row in labelled.rows(made, "train")[490:]]
        assert found.total == 250
        with pytest.raises(duckdb.PermissionException):
            files.execute("select * from read_parquet(?)", [f"{bucket}/elsewhere/{file.path}"])
        for code, content in (("snapshot_damaged", b"PAR1rubbishPAR1"), ("snapshot_not_found", None)):
            path = f"{storage.root}/one/{file.path}"
            storage.fs.rm_file(path) if content is None else storage.fs.pipe_file(path, content)
            with pytest.raises(Problem) as refusal, stored.opened(manifest, file, files) as split:
                split.rows(Span(0, 1))
            assert refusal.value.code == code


def test_the_copy_of_a_buckets_model_scores_while_the_bucket_is_away(
    serve: Serve, engine: Engine, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = f"{bucket}/{tmp_path.name}"
    monkeypatch.setenv("SNAPSHOTS_URL", address)
    version = store_model(engine, address, train())

    def start() -> None:
        with serve() as client:
            wait_for_model(client, version)

    start()
    [copy] = tmp_path.rglob("*.skops")
    with monkeypatch.context() as away:
        away.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
        start()
    # A copy that is damaged is replaced.
    content = copy.read_bytes()
    copy.write_bytes(content[:-1])
    start()
    assert copy.read_bytes() == content


def test_a_buckets_models_are_written_once_and_removed(engine: Engine, bucket: str, tmp_path: Path) -> None:
    address = f"{bucket}/{tmp_path.name}"
    version = store_model(engine, address, train())
    files = ModelFiles(address)
    content, manifest = files.read_model("toxicity", version), files.read_manifest("toxicity", version)
    files.write(manifest.model_copy(update={"seconds": 9}), {MODEL: b"other"})
    assert (files.read_model("toxicity", version), files.read_manifest("toxicity", version)) == (content, manifest)
    assert files.remove("toxicity", [version, "0" * 12]) == [version]
    with pytest.raises(FileNotFoundError):
        files.read_manifest("toxicity", version)
