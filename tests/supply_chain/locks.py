"""Reads the lock files: they name every package that is downloaded, with the hashes that it must have."""

import json
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PIPFILE_LOCK = ROOT / "Pipfile.lock"
ARGILLA = ROOT / "local_stack" / "packages" / "argilla_server.lock"
REQUIREMENTS = (
    ARGILLA,
    ROOT / "load_testing" / "bench" / "peers" / "roapi.lock",
    ROOT / "load_testing" / "bench" / "peers" / "datasette.lock",
)
OPENSEARCH = ROOT / "local_stack" / "packages" / "opensearch.lock"

OURSELVES = "annotation-platform"

_SHA256 = re.compile(r"sha256:[0-9a-f]{64}")
_PINNED = re.compile(r"(?P<name>[A-Za-z0-9][\w.-]*)(\[[\w,-]+\])?==[\w.!+-]+(\s*;[^\\]*)?")
_COORDINATE = re.compile(r"[0-9a-f]{64}  [\w.-]+:[\w.-]+:[\w.-]+:(jar|zip)")


def normalise(name: str) -> str:
    """Return a package's name as PEP 503 compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def runtime_packages() -> dict[str, str]:
    """Return the versions of what the programs need when they run, by normalised name."""
    packages = json.loads(PIPFILE_LOCK.read_text())["default"]
    return {normalise(name): one["version"][2:] for name, one in packages.items() if name != OURSELVES}


def complaints_of_pipfile_lock(content: str) -> list[str]:
    """Return what in a Pipfile.lock is not pinned, or has no hash; and addresses of package indexes."""
    lock = json.loads(content)
    found = ["names a package index"] if lock["_meta"]["sources"] else []
    for section in ("default", "develop"):
        for name, package in lock[section].items():
            if name == OURSELVES:
                continue
            hashes = package.get("hashes", [])
            if not package.get("version", "").startswith("=="):
                found.append(f"{name} is not pinned")
            if not hashes or not all(_SHA256.fullmatch(one) for one in hashes):
                found.append(f"{name} has no hash")
    return found


def complaints_of_requirements(content: str) -> list[str]:
    """Return what in a file of requirements is not pinned, or has no hash."""
    logical = re.sub(r"\\\n", " ", content)
    lines = [line for line in logical.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    found = [] if lines else ["is empty"]
    for line in lines:
        requirement, *options = re.split(r"\s+--hash=", line)
        if not _PINNED.fullmatch(requirement.strip()):
            found.append(f"not pinned: {requirement.strip()}")
        if not options or not all(_SHA256.fullmatch(one.strip()) for one in options):
            found.append(f"no hash: {requirement.strip()}")
    return found


def complaints_of_opensearch(content: str) -> list[str]:
    """Return the lines that are not a SHA-256 and a Maven coordinate with a version."""
    lines = [line for line in content.splitlines() if line and not line.startswith("#")]
    return [line for line in lines if not _COORDINATE.fullmatch(line)] if lines else ["is empty"]
