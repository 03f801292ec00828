"""Files that hold secrets: readable by their owner only, and never seen half-written."""

import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path


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
