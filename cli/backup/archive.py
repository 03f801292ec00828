"""An archive: a folder with dumps, snapshots, models and a manifest. It appears complete or not at all."""

import fcntl
import hashlib
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import fsspec
from pydantic import BaseModel, ConfigDict, Field, ValidationError

MANIFEST = "manifest.json"
# Ids of the texts that were forgotten, one a line: for a restore of an older archive.
FORGOTTEN = "forgotten.txt"
_SNAPSHOTS = "snapshots"

_FORMAT = 1
_UNFINISHED = ".unfinished-"
_PIECE = 1 << 20

Advance = Callable[[int], object]  # gets a number of bytes


class BackupError(Exception):
    """A backup or a restore is not possible; the message says why, and what to do."""


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
def new_archive(folder: Path) -> Iterator[tuple[Path, Path]]:
    """Give a hidden folder to fill, and its final name. An error in the block deletes the folder.

    A lock allows one archive at a time in a `folder`. Unfinished archives of killed backups are deleted.

    Raises:
        BackupError: another back-up into this folder is under way.
        OSError: the folder cannot be written to.
    """
    folder.mkdir(parents=True, exist_ok=True)
    name = f"annotation-platform-{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
    with _alone(folder):
        for dead in folder.glob(f"{_UNFINISHED}*"):
            shutil.rmtree(dead, ignore_errors=True)
        if (folder / name).exists():
            raise BackupError(f"There is an archive {folder / name} already.")
        unfinished = folder / f"{_UNFINISHED}{name}"
        unfinished.mkdir(mode=0o700)
        try:
            yield unfinished, folder / name
            _sync(unfinished, *unfinished.rglob("*"))
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
            raise BackupError(f"Another back-up into {folder} is under way.") from error
        yield


def _sync(*paths: Path) -> None:
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY)
        with suppress(OSError):  # some file systems cannot for folders
            os.fsync(descriptor)
        os.close(descriptor)


def describe_files(archive: Path, advance: Advance) -> dict[str, File]:
    """Return the sizes and hashes of all files of an archive but the manifest, by relative path."""
    return {path: _describe(archive / path, advance) for path in _list(archive)}


def read_manifest(archive: Path) -> Manifest:
    """Return the manifest of an archive.

    Raises:
        BackupError: the folder is not an archive, is unfinished, or is of an unknown release.
    """
    if _UNFINISHED in archive.name:
        raise BackupError(f"{archive} is not finished.")
    try:
        return Manifest.model_validate_json((archive / MANIFEST).read_bytes())
    except FileNotFoundError as error:
        raise BackupError(f"{archive} is no archive, or half of one: it has no {MANIFEST}.") from error
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()[:3])
        raise BackupError(f"{archive / MANIFEST} is damaged, or of another release. {wrong}") from error


def list_complaints(archive: Path, manifest: Manifest, advance: Advance) -> list[str]:
    """Read every file of an archive; return a line for each difference from the manifest."""
    found = describe_files(archive, advance)
    wrong = [f"{path}: is missing" for path in manifest.files.keys() - found.keys()]
    wrong += [f"{path}: is not in the manifest" for path in found.keys() - manifest.files.keys()]
    for path in manifest.files.keys() & found.keys():
        said = manifest.files[path]
        if found[path].bytes != said.bytes:
            wrong.append(f"{path}: has {found[path].bytes:,} bytes, not {said.bytes:,}")
        elif found[path] != said:
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


# Snapshots and models are immutable folders. The manifest of each is written last and names it complete.
_COPIED = ("*/snapshot.json", "models/*/*/model.json")
_IN_ARCHIVE = re.compile(rf"{_SNAPSHOTS}/([^/]+/snapshot|models/[^/]+/[^/]+/model)\.json")
_TRIES = 3


def copy_out(url: str, archive: Path, advance: Advance) -> None:
    """Copy all complete snapshots and models into the archive."""
    fs, root = fsspec.core.url_to_fs(url, skip_instance_cache=True)
    (archive / _SNAPSHOTS).mkdir()
    for manifest in [path for pattern in _COPIED for path in fs.glob(f"{root}/{pattern}")]:
        folder = manifest.rpartition("/")[0].removeprefix(f"{root}/")
        if not folder.rpartition("/")[2].startswith("."):
            target = archive / _SNAPSHOTS / folder
            _copy_folder(fs, manifest, target)
            advance(sum(file.stat().st_size for file in target.rglob("*")))


def _copy_folder(fs: fsspec.AbstractFileSystem, manifest: str, target: Path) -> None:
    source = manifest.rpartition("/")[0]
    for attempt in range(1, _TRIES + 1):
        try:
            # Read before the files: if it has changed afterwards, the folder is copied again.
            content = fs.cat_file(manifest)
            fs.invalidate_cache()
            target.parent.mkdir(parents=True, exist_ok=True)
            fs.get(source, str(target), recursive=True)
            if fs.cat_file(manifest) == content:
                return
        except FileNotFoundError:
            if attempt == _TRIES:
                raise
        shutil.rmtree(target, ignore_errors=True)
    raise BackupError(f"{source} changes all the time.")


def list_copied(manifest: Manifest) -> list[str]:
    """Return the paths of the manifests of the snapshots and models in an archive, below its `snapshots/`."""
    return sorted(found[1] + ".json" for path in manifest.files if (found := _IN_ARCHIVE.fullmatch(path)))


def count_snapshots(manifest: Manifest) -> int:
    """Return the number of snapshots in an archive."""
    return sum(path.endswith("/snapshot.json") for path in list_copied(manifest))


def list_conflicts(url: str, archive: Path, manifest: Manifest) -> list[str]:
    """Return the names of existing snapshots and models that differ from those of the archive."""
    fs, root = fsspec.core.url_to_fs(url, skip_instance_cache=True)
    return [
        path.rpartition("/")[0]
        for path in list_copied(manifest)
        if fs.exists(f"{root}/{path}")
        and fs.cat_file(f"{root}/{path}") != (archive / _SNAPSHOTS / path).read_bytes()
    ]


def copy_in(url: str, archive: Path, manifest: Manifest, advance: Advance) -> None:
    """Copy the archive's snapshots and models to their place, the manifest of each last."""
    fs, root = fsspec.core.url_to_fs(url, skip_instance_cache=True)
    last = {f"{_SNAPSHOTS}/{path}" for path in list_copied(manifest)}
    for path in sorted(manifest.files, key=lambda path: path in last):
        if path.startswith(f"{_SNAPSHOTS}/"):
            target = f"{root}/{path.removeprefix(f'{_SNAPSHOTS}/')}"
            fs.makedirs(target.rpartition("/")[0], exist_ok=True)
            fs.put_file(str(archive / path), target)
            advance(manifest.files[path].bytes)
