"""Finds files that other users of the machine could read."""

import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path


def open_to_others(folder: Path) -> dict[Path, str]:
    """Return the mode of everything in `folder`, itself included, that group or others may use in any way."""
    modes = dict(_modes(folder))
    assert len(modes) > 1, f"{folder} is empty"
    return {path: oct(mode) for path, mode in modes.items() if mode & 0o077}


def _modes(folder: Path) -> Iterator[tuple[Path, int]]:
    for path in (folder, *folder.rglob("*")):
        with suppress(FileNotFoundError):  # a server deletes its own files meanwhile
            # A link has no separate mode; its target is outside (the cache of downloads).
            if not path.is_symlink():
                yield path, stat.S_IMODE(path.lstat().st_mode)
