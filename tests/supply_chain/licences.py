"""Writes docs/licences.md from the packages that are installed: `python -m tests.supply_chain.licences`."""

import json
import re
import subprocess
import sys
import textwrap
from pathlib import Path

from tests.supply_chain.locks import ROOT, normalise, runtime_packages

PAGE = ROOT / "docs" / "licences.md"

# Licences that allow use, change and redistribution within a program of any licence. MPL and LGPL apply to changes
# of the package itself, and we change nothing. GPL and AGPL apply to the whole program; they and unknown
# licences are missing.
ALLOWED = {
    "0BSD",
    "Apache-2.0",
    "BSD",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "CC0-1.0",
    "CNRI-Python",
    "ISC",
    "LGPL-3.0-only",
    "MIT",
    "MIT-CMU",
    "MPL-2.0",
    "PSF-2.0",
    "Unlicense",
    "Zlib",
}
# What packages write in place of the SPDX identifier.
_SPELLINGS = {
    "3-Clause BSD License": "BSD-3-Clause",
    "Apache 2.0 License": "Apache-2.0",
    "Apache 2.0": "Apache-2.0",
    "Apache License 2.0": "Apache-2.0",
    "Apache Software License": "Apache-2.0",
    "BSD License": "BSD",
    "ISC License (ISCL)": "ISC",
    "MIT License": "MIT",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "Python Software Foundation License": "PSF-2.0",
}
# Packages whose metadata name none, or hold the whole licence; from the licence file of that version.
_READ_BY_US: dict[str, str] = {
    "cleanlab": "Apache-2.0",
    "prettytable": "BSD-3-Clause",
    "skops": "MIT",
    "wcwidth": "MIT",
}

_HEAD = """# Licences

This page lists the packages that the programs need at run time, with the licences that their metadata names.
`make licences` writes it. Packages for development and tests are not shipped and not listed. Argilla, OpenSearch,
Postgres and Redis are separate programs.

{allowed}
`tests/unit/test_supply_chain.py` fails for any other or unknown licence.

| package | version | licence |
|---|---|---|
"""


def read_licences() -> dict[str, str]:
    """Return the licence of each runtime package, by normalised name; "UNKNOWN" where none is named."""
    python = [sys.executable, "-c", "from piplicenses import main; main()"]
    done = subprocess.run([*python, "--format", "json"], capture_output=True, text=True, check=True, cwd=ROOT)
    found = {normalise(row["Name"]): row["License"] for row in json.loads(done.stdout)}
    return {name: _READ_BY_US.get(name) or spdx(found.get(name, "UNKNOWN")) for name in runtime_packages()}


def spdx(licence: str) -> str:
    """Return a licence in SPDX' words, as far as they are known."""
    if licence in _SPELLINGS:
        return _SPELLINGS[licence]
    return " AND ".join(_SPELLINGS.get(part, part) for part in licence.split("; "))


def is_allowed(licence: str) -> bool:
    """Whether all licences in an expression are allowed, alternatives included, which is stricter."""
    parts = re.split(r"\s+(?:AND|OR)\s+|[()]", licence)
    return all(part.strip() in ALLOWED for part in parts if part.strip())


def page(licences: dict[str, str]) -> str:
    """Return the page."""
    versions = runtime_packages()
    rows = [f"| {name} | {versions[name]} | {licences[name]} |\n" for name in sorted(versions)]
    allowed = textwrap.fill(f"Allowed are {', '.join(sorted(ALLOWED))}.", 100)
    return _HEAD.format(allowed=allowed) + "".join(rows)


def listed(content: str) -> dict[str, tuple[str, str]]:
    """Return version and licence of each package that the page lists."""
    rows = re.findall(r"^\| (\S+) \| (\S+) \| (.+) \|$", content, re.MULTILINE)
    return {name: (version, licence) for name, version, licence in rows if name != "package"}


def main() -> None:
    """Write the page.

    Raises:
        SystemExit: names the packages whose licence is not allowed.
    """
    licences = read_licences()
    Path(PAGE).write_text(page(licences))
    if wrong := {name: licence for name, licence in licences.items() if not is_allowed(licence)}:
        raise SystemExit(f"Not allowed: {wrong}")


if __name__ == "__main__":
    main()
