"""Files and directories for their owner only; files with secrets are never seen half-written."""

import json
import os
import stat
import tempfile
from collections.abc import Mapping
from pathlib import Path

from local_stack.errors import StackError


def close_directory(directory: Path) -> None:
    """Let only the owner into `directory`: that also protects files with open modes that an older version left.

    Raises:
        StackError: it belongs to another user, or is a directory that all users share, like `/tmp`.
    """
    status = directory.stat()
    if status.st_mode & stat.S_ISVTX:
        raise StackError(f"{directory} is shared by all users of this machine. Set DATA_DIR to a directory in it.")
    try:
        directory.chmod(0o700)
    except PermissionError as error:
        raise StackError(
            f"{directory} belongs to another user (uid {status.st_uid}), who could read all data. "
            "Set DATA_DIR to a directory of your own."
        ) from error


def write_private(path: Path, text: str) -> None:
    """Replace `path` with `text`, mode 0600, in one step."""
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def write_private_json(path: Path, content: Mapping[str, object]) -> None:
    """Replace `path` with `content` as JSON, mode 0600, in one step."""
    write_private(path, json.dumps(content, indent=2) + "\n")
