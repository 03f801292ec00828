"""Where snapshots are kept: a folder, or a bucket, each snapshot a folder of its own below it.

A snapshot is there once its `snapshot.json` is. In a folder it comes by one rename of the finished whole; in a
bucket, where nothing can be renamed, its other files come first, and its name is reserved meanwhile.
"""

import errno
import json
import os
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, cast

import fsspec
import structlog
from botocore.exceptions import BotoCoreError
from fsspec.implementations.local import LocalFileSystem
from pydantic import ValidationError

from core.web.problems import Conflict, NotFound, Unavailable
from serving_api.snapshots.manifest import MANIFEST, NAME, SnapshotManifest

log = structlog.get_logger()

# Beside the files of a snapshot in a bucket that is being written, or deleted.
_RESERVATION = "writing.json"
# A writer that has not brought one more file within this time counts as dead.
_RESERVED_SECONDS = 3600
# How long the storage may keep a thread: three attempts of a minute, and the pauses between them.
STORAGE_SECONDS = 240
_OPTIONS: dict[str, dict[str, Any]] = {
    "s3": {
        "skip_instance_cache": True,
        "config_kwargs": {"connect_timeout": 5, "read_timeout": 60, "retries": {"max_attempts": 3}},
    }
}
_NAME = re.compile(NAME)
_FULL = {errno.ENOSPC, errno.EDQUOT}


class Storage:
    """The snapshots below one address."""

    def __init__(self, url: str) -> None:
        protocol = url.split("://", 1)[0] if "://" in url else "file"
        self.fs, self.root = fsspec.core.url_to_fs(url, **_OPTIONS.get(protocol, {}))
        self.is_local = isinstance(self.fs, LocalFileSystem)
        self._manifests: dict[
            str, tuple[str, SnapshotManifest]
        ] = {}  # by name: what the listing says of it, and it

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
                with suppress(NotFound):  # it was removed just now
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
        """Open a file below a snapshot's folder: seekable, and read in parts only; raises as `get` does."""
        with reaching_storage():
            return cast(BinaryIO, self.fs.open(self._path(name, path), "rb", **options))

    def publish(self, folder: Path, name: str) -> None:
        """Bring a finished snapshot, its manifest included, from a local folder to its place.

        A local storage takes the folder itself: it must be one of `staging`.

        Raises:
            Conflict: there is one of this name, or it is being written elsewhere.
            Unavailable: the storage does not answer, or is full.
        """
        with reaching_storage():
            if self.is_local:
                _move(folder, Path(self.root) / name)
            else:
                self._upload(folder, name)

    def replace(self, folder: Path, manifest: SnapshotManifest) -> None:
        """Put another version of a snapshot in the place of its old one, at once, from a local folder.

        The new one's Parquet files have other names. `prune` removes the old ones.
        """
        with reaching_storage(), self._reserved(manifest.name):
            for file in (*(file for file in _files(folder) if file != MANIFEST), MANIFEST):
                self._put(folder / file, f"{self.root}/{manifest.name}/{file}")

    def delete(self, name: str, folder: Path) -> None:
        """Take a snapshot out of the storage, at once: readers find all of it or nothing, whatever dies meanwhile.

        A local storage moves it into `folder`, which is to be removed: it must be on the same disk.

        Raises:
            NotFound: there is no such snapshot.
            Unavailable: it is being written elsewhere, or the storage does not answer.
        """
        manifest = self._path(name, MANIFEST)
        target = manifest.rpartition("/")[0]
        with reaching_storage():
            if self.is_local:
                Path(manifest).stat()  # what has none is no snapshot
                Path(target).rename(folder / name)
                _sync(Path(self.root))
            else:
                self._delete_from_bucket(target)

    def prune(self, manifest: SnapshotManifest) -> None:
        """Remove the Parquet files in a snapshot's folder that are not its own any more."""
        kept = {split.path for split in manifest.splits.values()}
        with reaching_storage():
            self.fs.invalidate_cache()
            for path in self.fs.glob(f"{self.root}/{manifest.name}/data/*.parquet"):
                if "/".join(path.split("/")[-2:]) not in kept:
                    self.fs.rm_file(path)

    def clean(self) -> None:
        """Remove what those left in a bucket that died while they wrote or deleted."""
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
        # The path comes from a manifest or from this program; the name from a client.
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
        """Remove the manifest, and with it the snapshot; then the rest. `clean` goes on if this process dies."""
        with self._reserved(target.rpartition("/")[2]):
            self.fs.rm_file(f"{target}/{MANIFEST}")
            self.fs.invalidate_cache()
            for path in self.fs.find(target):
                if not path.endswith(f"/{_RESERVATION}"):
                    self.fs.rm_file(path)

    @contextmanager
    def _reserved(self, name: str) -> Iterator[None]:
        """Keep other machines from changing a snapshot in a bucket; in a folder there is a lock for that."""
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
                if self.fs.exists(manifest):  # else what is left is for `clean`
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
    """Return the refusal of a snapshot that is not there, or that the client must not know of."""
    return NotFound("There is no such snapshot, or file of it.", code="snapshot_not_found")


@contextmanager
def reaching_storage() -> Iterator[None]:
    """Say what a failure of the storage means to a client."""
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
        folder.rename(target)  # fails where there is a folder with anything in it
    except OSError as error:
        if error.errno in {errno.ENOTEMPTY, errno.EEXIST}:
            raise _exists(target.name) from error
        raise
    _sync(target.parent)


def _sync(path: Path) -> None:
    """Have the disk keep a file or folder, so that a loss of power leaves no hole in a snapshot."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove(folder: Path) -> None:
    """Remove a folder with all that is in it."""
    shutil.rmtree(folder, ignore_errors=True)
