"""The storage of snapshots: a local folder or a bucket, with one subfolder for each snapshot.

A snapshot exists if its `snapshot.json` exists. A local folder gets the finished snapshot by one rename. A bucket
has no rename: the writer reserves the name, uploads the other files, and then the manifest.
"""

import errno
import json
import os
import re
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, cast

import fsspec
import pyarrow as pa
import structlog
from botocore.exceptions import BotoCoreError
from fsspec.implementations.local import LocalFileSystem
from pyarrow import parquet
from pydantic import ValidationError

from core.web.problems import Conflict, NotFound, Unavailable
from serving_api.snapshots.manifest import MANIFEST, NAME, SnapshotManifest

log = structlog.get_logger()

# A file in the folder of a snapshot that is being written to or deleted from a bucket.
_RESERVATION = "writing.json"
# A writer that uploads no file within this time is considered dead.
_RESERVED_SECONDS = 3600
# A thread waits this long for the storage at most: three attempts of a minute, with pauses.
STORAGE_SECONDS = 240
_OPTIONS: dict[str, dict[str, Any]] = {
    "s3": {
        "skip_instance_cache": True,
        "config_kwargs": {"connect_timeout": 5, "read_timeout": 60, "retries": {"max_attempts": 3}},
    }
}
_NAME = re.compile(NAME)
_ROWS_AT_ONCE = 65_536
_FULL = {errno.ENOSPC, errno.EDQUOT}


class Storage:
    """The snapshots below one address."""

    def __init__(self, url: str) -> None:
        protocol = url.split("://", 1)[0] if "://" in url else "file"
        self.fs, self.root = fsspec.core.url_to_fs(url, **_OPTIONS.get(protocol, {}))
        self.is_local = isinstance(self.fs, LocalFileSystem)
        # By which DuckDB finds the files.
        self.address = self.root if self.is_local else self.fs.unstrip_protocol(self.root)
        # Manifests by name, with the file's state in the listing: a list reads changed manifests only.
        self._manifests: dict[str, tuple[str, SnapshotManifest]] = {}

    def list(self) -> list[SnapshotManifest]:
        """Return all manifests, the newest first.

        Raises:
            Unavailable: the storage does not answer.
        """
        with reaching_storage():
            self.fs.invalidate_cache()
            found = self.fs.glob(f"{self.root}/*/{MANIFEST}", detail=True)
            held = {}
            for path, info in found.items():
                name = path.split("/")[-2]
                stamp = str([info.get(key) for key in ("ETag", "size", "mtime", "ino", "LastModified", "created")])
                if not _NAME.fullmatch(name):
                    continue
                before = self._manifests.get(name)
                with suppress(NotFound):  # deleted since
                    held[name] = before if before and before[0] == stamp else (stamp, self.get(name))
        self._manifests = held
        newest = sorted((manifest for _, manifest in held.values()), key=lambda one: one.name)
        return sorted(newest, key=lambda one: one.created_at, reverse=True)

    def get(self, name: str) -> SnapshotManifest:
        """Return a snapshot's manifest.

        Raises:
            NotFound: there is no such snapshot.
            Unavailable: the storage does not answer.
        """
        content = self.read(name, MANIFEST)
        try:
            return SnapshotManifest.model_validate_json(content)
        except ValidationError as error:
            log.warning("snapshot.unreadable", name=name, error=str(error))
            raise NotFound("The snapshot's manifest cannot be read.", code="snapshot_not_found") from error

    def read(self, name: str, path: str) -> bytes:
        """Return all of a small file below a snapshot's folder; raises as `get` does."""
        with reaching_storage():
            return cast(bytes, self.fs.cat_file(self._path(name, path)))

    def open(self, name: str, path: str, **options: Any) -> BinaryIO:
        """Open a file below a snapshot's folder. It is seekable, and read in parts. Raises as `get` does."""
        with reaching_storage():
            return cast(BinaryIO, self.fs.open(self._path(name, path), "rb", **options))

    def address_of(self, name: str, path: str) -> str:
        """Return the address of a file below a snapshot's folder, for DuckDB."""
        self._path(name, path)  # checks both
        self.fs.invalidate_cache()
        return f"{self.address}/{name}/{path}"

    def batches(self, name: str, path: str, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
        """Yield the rows of a Parquet file, by default all columns; raises as `get` does."""
        with self.open(name, path) as file, reaching_storage():
            yield from parquet.ParquetFile(file).iter_batches(_ROWS_AT_ONCE, columns=columns)

    def publish(self, folder: Path, name: str) -> None:
        """Move or upload a finished snapshot, with its manifest, from a local folder.

        A local storage renames the folder, which must be on the same disk.

        Raises:
            Conflict: the name exists, or another machine is writing it.
            Unavailable: the storage does not answer, or is full.
        """
        with reaching_storage():
            if self.is_local:
                _move(folder, Path(self.root) / name)
            else:
                self._upload(folder, name)

    def replace(self, folder: Path, manifest: SnapshotManifest) -> None:
        """Replace a snapshot by the version in a local folder; the manifest comes last.

        The new Parquet files have other names. `prune` removes the old ones.
        """
        with reaching_storage(), self._reserved(manifest.name):
            for file in (*(file for file in _files(folder) if file != MANIFEST), MANIFEST):
                self._put(folder / file, f"{self.root}/{manifest.name}/{file}")

    def delete(self, name: str, folder: Path) -> None:
        """Remove a snapshot. Readers find all of it or nothing, even if this process dies.

        A local storage moves it into `folder`, which must be on the same disk; the caller removes `folder`.

        Raises:
            NotFound: there is no such snapshot.
            Unavailable: it is being written elsewhere, or the storage does not answer.
        """
        manifest = self._path(name, MANIFEST)
        target = manifest.rpartition("/")[0]
        with reaching_storage():
            if self.is_local:
                Path(manifest).stat()  # a folder without a manifest is no snapshot
                Path(target).rename(folder / name)
                _sync(Path(self.root))
            else:
                self._delete_from_bucket(target)

    def prune(self, manifest: SnapshotManifest) -> None:
        """Remove the Parquet files that a snapshot's manifest no longer names."""
        kept = {split.path for split in manifest.splits.values()}
        with reaching_storage():
            self.fs.invalidate_cache()
            for path in self.fs.glob(f"{self.root}/{manifest.name}/data/*.parquet"):
                if "/".join(path.split("/")[-2:]) not in kept:
                    self.fs.rm_file(path)

    def clean(self) -> None:
        """Remove the files of writers that died while they wrote to a bucket or deleted from it."""
        if self.is_local:
            return
        with reaching_storage():
            self.fs.invalidate_cache()
            for path in self.fs.glob(f"{self.root}/*/{_RESERVATION}"):
                folder = path.rpartition("/")[0]
                if self._is_reserved(folder):
                    continue
                if self.fs.exists(f"{folder}/{MANIFEST}"):
                    self.fs.rm_file(path)
                else:
                    self.fs.rm(folder, recursive=True)

    def _path(self, name: str, path: str) -> str:
        # The name comes from a client, the path from a manifest or this program.
        if not _NAME.fullmatch(name) or ".." in path:
            raise NotFound("There is no snapshot of this name.", code="snapshot_not_found")
        return f"{self.root}/{name}/{path}"

    def _upload(self, folder: Path, name: str) -> None:
        target = f"{self.root}/{name}"
        if self.fs.exists(f"{target}/{MANIFEST}"):
            raise _exists(name)
        self._reserve(target)
        try:
            for file in _files(folder):
                if file != MANIFEST:
                    self._put(folder / file, f"{target}/{file}")
                    self._write_reservation(target, "overwrite")
            self.fs.pipe_file(f"{target}/{MANIFEST}", (folder / MANIFEST).read_bytes(), mode="create")
        except FileExistsError as error:
            raise _exists(name) from error
        except BaseException:
            with suppress(Exception):
                self.fs.rm(target, recursive=True)
            raise
        self.fs.rm_file(f"{target}/{_RESERVATION}")

    def _delete_from_bucket(self, target: str) -> None:
        """Remove the manifest, then the other files. If this process dies, `clean` removes them."""
        with self._reserved(target.rpartition("/")[2]):
            self.fs.rm_file(f"{target}/{MANIFEST}")
            self.fs.invalidate_cache()
            for path in self.fs.find(target):
                if not path.endswith(f"/{_RESERVATION}"):
                    self.fs.rm_file(path)

    @contextmanager
    def _reserved(self, name: str) -> Iterator[None]:
        """Prevent other machines from changing a snapshot in a bucket. In a folder, the writer's lock does."""
        if self.is_local:
            yield
            return
        manifest, reservation = (f"{self.root}/{name}/{file}" for file in (MANIFEST, _RESERVATION))
        self._reserve(f"{self.root}/{name}")
        try:
            self.fs.invalidate_cache()
            if not self.fs.exists(manifest):
                self.fs.rm_file(reservation)
                raise FileNotFoundError(manifest)
            yield
        except BaseException:
            with suppress(Exception):
                if self.fs.exists(manifest):  # else `clean` removes the other files
                    self.fs.rm_file(reservation)
            raise
        self.fs.rm_file(reservation)

    def _reserve(self, target: str) -> None:
        try:
            self._write_reservation(target, "create")
        except FileExistsError:
            if self._is_reserved(target):
                raise Unavailable(
                    "A snapshot of this name is being written elsewhere.", code="too_busy", retry_after_seconds=10
                ) from None
            self._write_reservation(target, "overwrite")

    def _write_reservation(self, target: str, mode: str) -> None:
        until = json.dumps({"until": time.time() + _RESERVED_SECONDS}).encode()
        self.fs.pipe_file(f"{target}/{_RESERVATION}", until, mode=mode)

    def _is_reserved(self, target: str) -> bool:
        try:
            until = json.loads(self.fs.cat_file(f"{target}/{_RESERVATION}"))["until"]
        except FileNotFoundError:
            return False
        return bool(until > time.time())

    def _put(self, source: Path, target: str) -> None:
        if self.is_local:
            Path(target).parent.mkdir(parents=True, exist_ok=True)
            _sync(source)
            source.replace(target)
            _sync(Path(target).parent)
        else:
            self.fs.put_file(str(source), target)


def no_snapshot() -> NotFound:
    """Return the refusal of a snapshot that does not exist, or that the client must not see."""
    return NotFound("There is no such snapshot, or file of it.", code="snapshot_not_found")


@contextmanager
def reaching_storage() -> Iterator[None]:
    """Turn failures of the storage into problems."""
    try:
        yield
    except FileNotFoundError as error:
        raise no_snapshot() from error
    except (OSError, BotoCoreError) as error:
        if isinstance(error, OSError) and error.errno in _FULL:
            raise storage_full() from error
        raise Unavailable(
            "The storage of the snapshots does not answer.", code="storage_unavailable", retry_after_seconds=5
        ) from error


def storage_full() -> Unavailable:
    """Return the refusal of a snapshot for which there is no disk space."""
    return Unavailable("There is no space for the snapshot.", code="storage_full", retry_after_seconds=60)


def _exists(name: str) -> Conflict:
    return Conflict(f"There is a snapshot {name} already.", code="snapshot_exists")


def _files(folder: Path) -> list[str]:
    return sorted(str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file())


def _move(folder: Path, target: Path) -> None:
    for file in _files(folder):
        _sync(folder / file)
    for inner in (folder, *(path for path in folder.rglob("*") if path.is_dir())):
        _sync(inner)
    try:
        folder.rename(target)  # fails if the target is a folder with files
    except OSError as error:
        if error.errno in {errno.ENOTEMPTY, errno.EEXIST}:
            raise _exists(target.name) from error
        raise
    _sync(target.parent)


def _sync(path: Path) -> None:
    """Sync a file or folder to disk, so that a power failure does not damage a snapshot."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove(folder: Path) -> None:
    """Remove a folder with its content."""
    shutil.rmtree(folder, ignore_errors=True)
