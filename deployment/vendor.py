"""Copies the JavaScript packages that the pages use from the npm registry: `make vendor`.

In each folder of `FOLDERS`, packages.json pins packages by version and by the SHA-512 of their archives, as npm
states it. `npm pack` downloads the archives; npm's own configuration names the registry. The files are committed,
so that the pages work without internet access and without a build step.
"""

import base64
import hashlib
import json
import re
import subprocess
import tarfile
import tempfile
from pathlib import Path
from typing import Any

_PROJECT = Path(__file__).parents[1]
FOLDERS = (_PROJECT / "core" / "web" / "static" / "vendor", _PROJECT / "tests" / "e2e" / "pages" / "vendor")
PACKAGES = "packages.json"
_MODULES = (".mjs", ".module.js")

# Browsers need a path where the packages name each other; an import map would have to be inline.
_IMPORT = re.compile(rb'(from|import)"([a-z@/-]+)"')
_SOURCE_MAP = re.compile(rb"\n?//# sourceMappingURL=\S+\s*$")


def main() -> None:
    """Download every package and write the files that the pages use.

    Raises:
        SystemExit: an archive is not the one that packages.json pins.
    """
    for folder in FOLDERS:
        for name, package in json.loads((folder / PACKAGES).read_text()).items():
            with tempfile.TemporaryDirectory() as download:
                archive = _download(f"{name}@{package['version']}", Path(download))
                check(name, archive.read_bytes(), package["integrity"])
                _copy(archive, package, folder)
            print(f"{name} {package['version']}")  # noqa: T201


def check(name: str, archive: bytes, pinned: str) -> None:
    """Check that an archive is the one that is pinned.

    Raises:
        SystemExit: it is another one.
    """
    found = integrity(archive)
    if found != pinned:
        raise SystemExit(f"{name}: the archive has {found}, but {PACKAGES} pins {pinned}.")


def integrity(content: bytes) -> str:
    """Return the hash of an archive as npm writes it."""
    return f"sha512-{base64.b64encode(hashlib.sha512(content).digest()).decode()}"


def for_browsers(script: bytes) -> bytes:
    """Return a module whose imports name the files in its folder, without the address of its source map."""
    return _IMPORT.sub(rb'\1"./\2.js"', _SOURCE_MAP.sub(b"\n", script))


def _download(package: str, folder: Path) -> Path:
    command = ["npm", "pack", package, "--silent", "--ignore-scripts", "--pack-destination", str(folder)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)  # noqa: S603 - known names
    return next(folder.glob("*.tgz"))


def _copy(archive: Path, package: dict[str, Any], folder: Path) -> None:
    with tarfile.open(archive) as files:
        for target, source in package["files"].items():
            member = files.extractfile(f"package/{source}")
            if member is None:
                raise SystemExit(f"{archive.name} has no file {source}.")
            content = member.read()
            (folder / target).write_bytes(for_browsers(content) if source.endswith(_MODULES) else content)


if __name__ == "__main__":
    main()
