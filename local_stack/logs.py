"""Log files of the components: bounded, private, and quoted when something fails."""

import os
import shutil
from pathlib import Path

MAX_LOG_BYTES = 20 * 2**20


def open_log(path: Path) -> int:
    """Open `path` for appending and return the descriptor; a log over the limit becomes `NAME.log.1` first."""
    if path.exists() and path.stat().st_size > MAX_LOG_BYTES:
        path.replace(_older(path))
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)


def bound_log(path: Path) -> None:
    """Move a log over the limit to `NAME.log.1` while its writer goes on; lines written meanwhile may be lost."""
    if path.exists() and path.stat().st_size > MAX_LOG_BYTES:
        shutil.copyfile(path, _older(path))
        # The writer appends, so it goes on at the new end.
        os.truncate(path, 0)


def _older(path: Path) -> Path:
    return path.with_name(path.name + ".1")


def last_lines(path: Path, count: int = 20) -> str:
    """Return the last lines of a log, indented, to show beside an error."""
    if not path.exists():
        return "  (no output)"
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 16_384))
        lines = file.read().decode(errors="replace").splitlines()[-count:]
    return "\n".join(f"  {line}" for line in lines) or "  (no output)"
