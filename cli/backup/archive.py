"""An archive: a folder with dumps, snapshots and a manifest of hashes. It appears complete or not at all."""

import fcntl
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO, cast
from uuid import UUID

import fsspec
from pydantic import BaseModel, ConfigDict, Field, ValidationError

MANIFEST = "manifest.json"
PLATFORM_DUMP = "platform.dump"
ARGILLA_DUMP = "argilla.dump"
# Ids of the texts that were forgotten, one a line: for a restore of an older archive.
FORGOTTEN = "forgotten.txt"
SNAPSHOTS = "snapshots"

_FORMAT = 1
_UNFINISHED = ".unfinished-"
_PIECE = 1 << 20

Advance = Callable[[int], object]  # gets a number of bytes


class BackupError(Exception):
    """A backup or a restore is not possible; the message says why, and what to do."""


class BadArchive(BackupError):
    """The folder is not an archive, or differs from its manifest."""


class Dumped(BaseModel):
    """One database as it was dumped."""

    model_config = ConfigDict(frozen=True)

    taken_at: datetime = Field(description="What was committed until then is in the dump. The server's clock.")
    server_major: int
    pg_dump_major: int
    revision: str | None = Field(description="Of its schema, as Alembic names it.")
    rows: dict[str, int] = Field(description="Rows of some tables, to be compared after a restore.")


class File(BaseModel):
    """One file of an archive."""

    model_config = ConfigDict(frozen=True)

    bytes: int = Field(ge=0)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


class Manifest(BaseModel):
    """What an archive holds."""

    model_config = ConfigDict(frozen=True)

    format: int = Field(_FORMAT, ge=_FORMAT, le=_FORMAT)
    release: str
    started_at: datetime
    ended_at: datetime
    platform: Dumped
    argilla: Dumped | None = Field(description="None: made without Argilla.")
    webhooks: tuple[UUID, ...] = Field(description="Argilla's ids of the webhooks that are ours.")
    has_snapshots: bool
    files: dict[str, File] = Field(description="By path below the archive.")

    @property
    def bytes(self) -> int:
        """Size of all files but the manifest."""
        return sum(file.bytes for file in self.files.values())


@contextmanager
def new_archive(folder: Path, now: datetime | None = None) -> Iterator[tuple[Path, Path]]:
    """Give a hidden folder to fill, and its final name. An error in the block deletes the folder.

    A lock allows one archive at a time in a `folder`. Unfinished archives of killed backups are deleted.

    Raises:
        BadArchive: another back-up into this folder is under way.
        OSError: the folder cannot be written to.
    """
    folder.mkdir(parents=True, exist_ok=True)
    name = f"annotation-platform-{now or datetime.now(UTC):%Y%m%dT%H%M%SZ}"
    with _alone(folder):
        for dead in folder.glob(f"{_UNFINISHED}*"):
            shutil.rmtree(dead, ignore_errors=True)
        if (folder / name).exists():
            raise BadArchive(f"There is an archive {folder / name} already.")
        unfinished = folder / f"{_UNFINISHED}{name}"
        unfinished.mkdir(mode=0o700)
        try:
            yield unfinished, folder / name
            _sync_folders(unfinished)
            unfinished.rename(folder / name)
            _sync(folder)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    with (folder / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise BadArchive(f"Another back-up into {folder} is under way.") from error
        yield


def describe_files(archive: Path, advance: Advance) -> dict[str, File]:
    """Sync all files of an archive to the disk; return their sizes and hashes by relative path."""
    found = {}
    for path in _list(archive):
        _sync(archive / path)
        found[path] = _describe(archive / path, advance)
    return found


def write_manifest(archive: Path, manifest: Manifest) -> None:
    """Write the manifest, the last file, and sync it to the disk."""
    (archive / MANIFEST).write_text(manifest.model_dump_json(indent=2) + "\n")
    _sync(archive / MANIFEST)


def read_manifest(archive: Path) -> Manifest:
    """Return the manifest of an archive.

    Raises:
        BadArchive: the folder is not an archive, is unfinished, or is of an unknown release.
    """
    if _UNFINISHED in archive.name:
        raise BadArchive(f"{archive} is not finished.")
    try:
        return Manifest.model_validate_json((archive / MANIFEST).read_bytes())
    except FileNotFoundError as error:
        raise BadArchive(f"{archive} is no archive, or half of one: it has no {MANIFEST}.") from error
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()[:3])
        raise BadArchive(f"{archive / MANIFEST} is damaged, or of another release. {wrong}") from error


def list_complaints(archive: Path, manifest: Manifest, advance: Advance) -> list[str]:
    """Read every file of an archive; return a line for each difference from the manifest."""
    there = set(_list(archive))
    wrong = [f"{path}: is missing" for path in manifest.files.keys() - there]
    wrong += [f"{path}: is not in the manifest" for path in there - manifest.files.keys()]
    for path in sorted(manifest.files.keys() & there):
        said, found = manifest.files[path], _describe(archive / path, advance)
        if found.bytes != said.bytes:
            wrong.append(f"{path}: has {found.bytes:,} bytes, not {said.bytes:,}")
        elif found != said:
            wrong.append(f"{path}: is damaged, its SHA-256 is another one")
    return sorted(wrong)


def _list(archive: Path) -> list[str]:
    # Targets of links do not belong to the archive.
    files = (path for path in archive.rglob("*") if path.is_file() and not path.is_symlink())
    return sorted(str(path.relative_to(archive)) for path in files if path != archive / MANIFEST)


def _describe(path: Path, advance: Advance) -> File:
    digest, size = hashlib.sha256(), 0
    with path.open("rb") as file:
        while piece := file.read(_PIECE):
            digest.update(piece)
            size += len(piece)
            advance(len(piece))
    return File(bytes=size, sha256=digest.hexdigest())


def _sync_folders(archive: Path) -> None:
    for path in (archive, *archive.rglob("*")):
        if path.is_dir():
            _sync(path)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    with suppress(OSError):  # some file systems cannot for folders
        os.fsync(descriptor)
    os.close(descriptor)


_MANIFEST = "snapshot.json"
_TRIES = 3


def copy_out(url: str, archive: Path, advance: Advance) -> int:
    """Copy all complete snapshots into the archive; return their number."""
    fs, root = fsspec.core.url_to_fs(url, skip_instance_cache=True)
    target = archive / SNAPSHOTS
    target.mkdir()
    names = [path.split("/")[-2] for path in fs.glob(f"{root}/*/{_MANIFEST}")]
    names = [name for name in names if not name.startswith(".")]
    for name in names:
        _copy_one(fs, f"{root}/{name}", target / name, advance)
    return len(names)


def _copy_one(fs: fsspec.AbstractFileSystem, source: str, target: Path, advance: Advance) -> None:
    for attempt in range(1, _TRIES + 1):
        try:
            # Read before the files: if it has changed afterwards, the snapshot is copied again.
            manifest = fs.cat_file(f"{source}/{_MANIFEST}")
            fs.invalidate_cache()
            for path in fs.find(source):
                _copy(cast(BinaryIO, fs.open(path, "rb")), target / path.removeprefix(f"{source}/"), advance)
            if fs.cat_file(f"{source}/{_MANIFEST}") == manifest:
                return
        except FileNotFoundError:
            if attempt == _TRIES:
                raise
        shutil.rmtree(target, ignore_errors=True)
    raise BadArchive(f"The snapshot {source} changes all the time.")


def _copy(source: BinaryIO, target: Path, advance: Advance) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with source, target.open("xb") as file:
        for piece in _pieces(source):
            file.write(piece)
            advance(len(piece))


def _pieces(source: BinaryIO) -> Iterator[bytes]:
    while piece := source.read(_PIECE):
        yield piece


def list_conflicts(url: str, archive: Path, manifest: Manifest) -> list[str]:
    """Return the names of existing snapshots that differ from those of the archive."""
    fs, root = fsspec.core.url_to_fs(url, skip_instance_cache=True)
    conflicts = []
    for name in names_in(manifest):
        there = f"{root}/{name}/{_MANIFEST}"
        ours = (archive / SNAPSHOTS / name / _MANIFEST).read_bytes()
        if fs.exists(there) and fs.cat_file(there) != ours:
            conflicts.append(name)
    return conflicts


def names_in(manifest: Manifest) -> list[str]:
    """Return the names of the snapshots in an archive."""
    depth = 3  # snapshots/NAME/snapshot.json
    paths = (path.split("/") for path in manifest.files)
    return sorted(p[1] for p in paths if len(p) == depth and p[0] == SNAPSHOTS and p[2] == _MANIFEST)


def copy_in(url: str, archive: Path, manifest: Manifest, advance: Advance) -> int:
    """Copy the archive's snapshots to their place, the manifest of each last; return their number."""
    fs, root = fsspec.core.url_to_fs(url, skip_instance_cache=True)
    names = names_in(manifest)
    for name in names:
        prefix = f"{SNAPSHOTS}/{name}/"
        files = sorted((path for path in manifest.files if path.startswith(prefix)), key=_is_manifest)
        for path in files:
            target = f"{root}/{path.removeprefix(f'{SNAPSHOTS}/')}"
            fs.makedirs(target.rpartition("/")[0], exist_ok=True)
            with (archive / path).open("rb") as source, fs.open(target, "wb") as file:
                for piece in _pieces(cast(BinaryIO, source)):
                    file.write(piece)
                    advance(len(piece))
    return len(names)


def _is_manifest(path: str) -> bool:
    return path.endswith(f"/{_MANIFEST}")
