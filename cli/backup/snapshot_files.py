"""Copies snapshots between their place (folder or bucket) and an archive. One is there once its manifest is."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, cast

import fsspec

from cli.backup.archive import SNAPSHOTS, Advance, BadArchive, Manifest

_MANIFEST = "snapshot.json"
_TRIES = 3
_PIECE = 1 << 20


def copy_out(url: str, archive: Path, advance: Advance) -> int:
    """Copy all whole snapshots into the archive; return how many."""
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
            # Before its files: if it is rewritten meanwhile, these are gone, and it is copied anew.
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
    """Return the names of snapshots that are there already, and are not those of the archive."""
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
    """Copy the archive's snapshots to their place, each one's manifest last; return how many."""
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
