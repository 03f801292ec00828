"""Free disk space, and what to say when there is none."""

import errno
import shutil
from pathlib import Path

from local_stack.errors import StackError


def check_free_disk(directory: Path, needed_mb: int, setting: str) -> None:
    """Check that `directory` (which exists) has room.

    Raises:
        StackError: less than `needed_mb` MiB are free; `setting` is what the person can change.
    """
    free_mb = shutil.disk_usage(directory).free // 2**20
    if free_mb < needed_mb:
        raise StackError(
            f"The disk of {directory} is nearly full: {free_mb} MiB are free, {needed_mb} MiB are needed. "
            f"Free some space, or set {setting} to a directory on another disk."
        )


def is_disk_full(error: OSError) -> bool:
    """Whether a write failed because a disk or a quota is full."""
    return error.errno in {errno.ENOSPC, errno.EDQUOT}
