"""Restores a dump into a database in one transaction.

psql reads one stream: `begin`, the removal of the present tables, the statements that pg_restore makes of the
dump, the reset of stale values, `commit`. If one of the programs fails or dies, psql never reads `commit`, and the
database stays unchanged.
"""

import os
import subprocess
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO
from uuid import UUID

import psycopg
from psycopg import sql

from cli.backup.archive import Advance, BackupError, Dumped
from cli.backup.pg_dump import Connection, Tools, access, server_major
from core.change_feed import STAMP
from core.connections import connection_string

_PIECE = 1 << 20

# The reset precedes the indexes, so it does not have to update them.
_DATA = ("pre-data", "data")
_INDEXES = ("post-data",)

# Stale after a restore: transaction ids, leases, and how far Argilla was read. The first sweep then reads all
# answers that Argilla got after the platform's dump. Webhooks stay: their ids identify ours in Argilla, and the
# uploader sets their present address.
_RESET = f"""
update labels set changed_xid = {STAMP};
update datasets set leader_id = null, leader_until = null, rule_seen_xid = null, events_applied_at = null,
    activity_seen_at = null, difference_seen = null, swept_at = null,
    sweep_position = null, sweep_activity_at = null, sweep_difference = null;
-- uploading -> pending: the uploader that claimed it is gone
update texts set status = 'pending', lease_owner = null, lease_until = null, retry_at = null
    where status = 'uploading';
-- running -> waiting: the same
update imports set state = 'waiting', lease_owner = null, lease_until = null where state = 'running';
delete from alerts;
"""  # noqa: S608 - a constant

# Argilla must not send events to the platform's former address. The uploader sets the address and enables them.
_RESET_ARGILLA = "update webhooks set enabled = false where id in ({ids});\n"

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


class RestoreRefused(BackupError):
    """The archive may not be restored into this database; the message says why, and what to do."""


class RestoreFailed(BackupError):
    """Postgres refused the dump; the database is unchanged. The message is Postgres' own."""


def check_target(url: str, dumped: Dumped, tables: Sequence[str], *, replace: bool) -> int:
    """Check that a database may be restored into; return the major release of its server.

    Args:
        tables: their rows count as data; a database with data needs `replace`.

    Raises:
        RestoreRefused: the server is older, programs are connected, or there is data and `replace` is false.
        psycopg.OperationalError: Postgres does not answer.
    """
    with psycopg.connect(connection_string(url, "annotate restore"), autocommit=True) as connection:
        major, name = server_major(connection), connection.info.dbname
        if major < dumped.server_major:
            raise RestoreRefused(
                f"The archive is of Postgres {dumped.server_major}, and the server of {name} is Postgres {major}: "
                "an older server cannot restore it."
            )
        _check_no_programs(connection)
        if not replace and (held := _list_data(connection, tables)):
            raise RestoreRefused(
                f"The database {name} is not empty: it holds {', '.join(held)}. "
                "Restore into an empty one, or give --replace to lose what it holds."
            )
        return major


def _check_no_programs(connection: Connection) -> None:
    others = connection.execute("""
        select coalesce(nullif(application_name, ''), 'unnamed'), count(*) from pg_stat_activity
        where datname = current_database() and pid <> pg_backend_pid() and backend_type = 'client backend'
        group by 1 order by 1
    """).fetchall()
    if others:
        named = ", ".join(f"{program} ({count})" for program, count in others)
        raise RestoreRefused(
            f"Programs are connected to {connection.info.dbname}: {named}. Stop all but Postgres first."
        )


def _list_data(connection: Connection, tables: Sequence[str]) -> list[str]:
    held = []
    for table in tables:
        [(there,)] = connection.execute("select to_regclass(%s) is not null", [f"public.{table}"]).fetchall()
        if not there:
            continue
        query = sql.SQL("select count(*) from (select from public.{} limit 1000000) as counted")
        [(count,)] = connection.execute(query.format(sql.Identifier(table))).fetchall()
        # A new Argilla has an owner.
        if isinstance(count, int) and count > (table == "users"):
            held.append(f"{count:,} {table}")
    return held


def restore_platform(tools: Tools, url: str, dump: Path, show_bytes: Advance) -> None:
    """Replace the platform's database by a dump. Raises as `_restore` does."""
    _restore(tools, url, dump, _RESET, show_bytes)


def restore_argilla(tools: Tools, url: str, dump: Path, webhooks: Sequence[UUID], show_bytes: Advance) -> None:
    """Replace Argilla's database by a dump, and disable these webhooks. Raises as `_restore` does."""
    ids = ", ".join(f"'{id_}'" for id_ in webhooks)
    _restore(tools, url, dump, _RESET_ARGILLA.format(ids=ids) if ids else "", show_bytes)
    with psycopg.connect(connection_string(url, "annotate restore"), autocommit=True) as connection:
        # In this comment, the local stack notes that the owner has its passwords. Now the owner has the archive's.
        name = sql.Identifier(connection.info.dbname)
        with suppress(psycopg.errors.InsufficientPrivilege):
            connection.execute(sql.SQL("comment on database {} is null").format(name))


def _restore(tools: Tools, url: str, dump: Path, reset: str, show_bytes: Advance) -> None:
    """Replace a database by a dump; `show_bytes` gets how much of the dump was read.

    Raises:
        RestoreFailed: Postgres refused it; the database is unchanged.
    """
    with access(url) as (target, environment), tempfile.TemporaryFile() as words:
        command = [tools.path("psql"), "-X", "-q", "-v", "ON_ERROR_STOP=1", "--no-password", "-f", "-", target]
        psql = subprocess.Popen(  # noqa: S603 - psql
            command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=words
        )
        assert psql.stdin is not None  # noqa: S101 - a pipe was asked for
        try:
            _write(psql.stdin, f"begin;\nset local client_min_messages = warning;\n{_REMOVE}")
            _stream(tools, dump, _DATA, psql.stdin, show_bytes)
            # The dump leaves an empty search path.
            _write(psql.stdin, f"set local search_path = public;\n{reset}")
            _stream(tools, dump, _INDEXES, psql.stdin, show_bytes)
            _write(psql.stdin, "commit;\n")
            psql.stdin.close()
        except BaseException as error:
            _kill(psql)
            if isinstance(error, BrokenPipeError | RestoreFailed):
                raise RestoreFailed(f"Nothing was restored: {_read(words) or error}") from error
            raise
        if psql.wait():
            raise RestoreFailed(f"Nothing was restored: {_read(words)}")
    with psycopg.connect(connection_string(url, "annotate restore"), autocommit=True) as connection:
        connection.execute("set statement_timeout = 0")
        connection.execute("analyze")


def _kill(psql: subprocess.Popen[bytes]) -> None:
    # Before its input is closed, so that it cannot take the end of the input for the end of the work.
    psql.kill()
    psql.wait()
    if psql.stdin is not None:
        with suppress(BrokenPipeError):
            psql.stdin.close()


def _write(stream: IO[bytes], statements: str) -> None:
    stream.write(statements.encode())
    stream.flush()


def _stream(tools: Tools, dump: Path, sections: Sequence[str], target: IO[bytes], show_bytes: Advance) -> None:
    """Write sections of a dump to psql, as statements.

    Raises:
        RestoreFailed: pg_restore ended with an error.
        BrokenPipeError: psql ended.
    """
    chosen = [f"--section={section}" for section in sections]
    command = [tools.path("pg_restore"), "--no-owner", "--no-privileges", *chosen, "--file=-"]
    with dump.open("rb") as file, tempfile.TemporaryFile() as words:
        with subprocess.Popen(command, stdin=file, stdout=subprocess.PIPE, stderr=words) as pg_restore:  # noqa: S603
            assert pg_restore.stdout is not None  # noqa: S101 - a pipe was asked for
            try:
                while piece := pg_restore.stdout.read(_PIECE):
                    target.write(piece)
                    # The two processes share the file's offset.
                    show_bytes(os.lseek(file.fileno(), 0, os.SEEK_CUR))
            except BaseException:
                pg_restore.kill()
                raise
        if pg_restore.returncode:
            raise RestoreFailed(f"pg_restore: {_read(words)}")


def _read(words: IO[bytes]) -> str:
    words.seek(0)
    return " ".join(words.read().decode(errors="replace").split())[:1000]
