"""Takes the package index's address out of a Pipfile.lock, so that everybody's own pip settings decide."""

import json
import sys
from pathlib import Path


def strip(path: Path) -> None:
    """Rewrite the lock file without sources and index names; versions and hashes stay."""
    lock = json.loads(path.read_text())
    lock["_meta"]["sources"] = []
    for section in lock.values():
        for package in section.values():
            if isinstance(package, dict):
                package.pop("index", None)
    path.write_text(json.dumps(lock, indent=4, sort_keys=True) + "\n")


if __name__ == "__main__":
    strip(Path(sys.argv[1]))
