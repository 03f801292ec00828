"""Finds a Java that has what OpenSearch's CommonAnalysisPlugin needs: Argilla 1.29 uses its analyzers."""

import mmap
import os
import re
import shutil
from pathlib import Path

from local_stack import StackError

OLDEST = 17
# Java's word boundaries in Thai; a runtime that was made small lacks them, and the plugin does not load.
_THAI = b"BreakIteratorInfo_th"
_VERSION = re.compile(r'^JAVA_VERSION="(\d+)', re.MULTILINE)
_ADVICE = (
    f"Version 1 needs a whole Java {OLDEST} or newer, with its Thai locale data. {{found}} "
    "Get one, for example `apt-get install openjdk-17-jre-headless` (Debian, Ubuntu) or a Temurin 17 from "
    "https://adoptium.net, and put it on the PATH, or set JAVA_HOME to it."
)


def find_java() -> Path:
    """Return the `java` of JAVA_HOME, else the one on the PATH.

    Raises:
        StackError: there is none, or it is too old, or it lacks the Thai locale data.
    """
    home = os.environ.get("JAVA_HOME")
    found = shutil.which("java", path=str(Path(home) / "bin") if home else None)
    if found is None:
        where = f"JAVA_HOME={home} has no bin/java." if home else "There is no `java` on the PATH."
        raise StackError(_ADVICE.format(found=where))
    java = Path(found).resolve()
    if problem := _what_lacks(java.parents[1]):
        raise StackError(_ADVICE.format(found=f"{java} {problem}."))
    return java


def _what_lacks(home: Path) -> str:
    """Return what is missing from the runtime in this folder, or nothing."""
    release, modules = home / "release", home / "lib" / "modules"
    version = _VERSION.search(release.read_text()) if release.is_file() else None
    if version is None or not modules.is_file():
        return f"is not that of a Java {OLDEST}: {home} lacks the files `release` or `lib/modules`"
    if int(version[1]) < OLDEST:
        return f"is of Java {version[1]}"
    with modules.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return "" if content.find(_THAI) >= 0 else "has no Thai locale data"
