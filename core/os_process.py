"""Settings of this process in the operating system: private files, low priority."""

import os
import resource
import signal
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import structlog

log = structlog.get_logger()

_OTHERS = stat.S_IRWXG | stat.S_IRWXO


def keep_files_private() -> None:
    """Make every file that this process and its children create readable by its owner only."""
    os.umask(_OTHERS)


def close_folder(folder: Path) -> None:
    """Let only the owner into `folder`, if it exists.

    Older versions created folders and files that everybody could read. Closing the folder also protects the files
    in it, so their own permissions may stay.
    """
    try:
        mode = stat.S_IMODE(folder.stat().st_mode)
        if mode & _OTHERS:
            folder.chmod(mode & ~_OTHERS)
            log.info("files.closed", folder=str(folder))
    except FileNotFoundError:
        return  # umask gives a new folder the right permissions
    except PermissionError:
        # A mounted volume can belong to another user. The program can work there, but its owner has to close it.
        log.warning("files.open_to_others", folder=str(folder))


_NICENESS = 19


def step_back() -> None:
    """Let what people wait for go first, and leave Ctrl-C to the process that serves them."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.nice(_NICENESS - os.nice(0))


@contextmanager
def limited_memory(bytes_: int) -> Iterator[None]:
    """Raise MemoryError when this process allocates more than `bytes_` within the block."""
    former, most = resource.getrlimit(resource.RLIMIT_DATA)
    wanted = bytes_ if most == resource.RLIM_INFINITY else min(bytes_, most)
    resource.setrlimit(resource.RLIMIT_DATA, (wanted, most))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (former, most))
