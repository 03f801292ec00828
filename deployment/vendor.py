"""Copies the JavaScript packages that the pages use from the npm registry: `make vendor`.

`core/web/static/vendor/packages.json` pins each package by version and by the SHA-512 of its archive, as npm
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

FOLDER = Path(__file__).parents[1] / "core" / "web" / "static" / "vendor"
PACKAGES = FOLDER / "packages.json"

# Browsers need a path where the packages name each other; an import map would have to be inline.
_IMPORT = re.compile(rb'(from|import)"([a-z@/-]+)"')
_SOURCE_MAP = re.compile(rb"\n?//# sourceMappingURL=\S+\s*$")


def main() -> None:
    """Download every package and write the files that the pages use.

    Raises:
        SystemExit: an archive is not the one that packages.json pins.
    """
    for name, package in json.loads(PACKAGES.read_text()).items():
        with tempfile.TemporaryDirectory() as folder:
            archive = _download(f"{name}@{package['version']}", Path(folder))
            found = integrity(archive.read_bytes())
            if found != package["integrity"]:
                raise SystemExit(f"{name}: the archive is {found}, but packages.json pins {package['integrity']}.")
            _copy(archive, package)
        print(f"{name} {package['version']}")  # noqa: T201


def integrity(content: bytes) -> str:
    """Return the hash of an archive as npm writes it."""
    return f"sha512-{base64.b64encode(hashlib.sha512(content).digest()).decode()}"


def for_browsers(script: bytes) -> bytes:
    """Return a module whose imports name the files beside it, without the address of its source map."""
    return _IMPORT.sub(rb'\1"./\2.js"', _SOURCE_MAP.sub(b"\n", script))


def _download(package: str, folder: Path) -> Path:
    command = ["npm", "pack", package, "--silent", "--ignore-scripts", "--pack-destination", str(folder)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)  # noqa: S603 - known names
    return next(folder.glob("*.tgz"))


def _copy(archive: Path, package: dict[str, Any]) -> None:
    with tarfile.open(archive) as files:
        for target, source in package["files"].items():
            member = files.extractfile(f"package/{source}")
            if member is None:
                raise SystemExit(f"{archive.name} has no file {source}.")
            content = member.read()
            (FOLDER / target).write_bytes(for_browsers(content) if target.endswith(".js") else content)


if __name__ == "__main__":
    main()
