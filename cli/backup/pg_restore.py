"""Puts a dump into a database in one transaction: what was there goes, the dump comes, and what is stale is reset.

psql gets one stream: `begin`, the removal of what is there, what pg_restore makes of the dump, the reset,
`commit`. Whoever dies on the way, `commit` does not come, and the database stays as it was.
"""

import subprocess
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO
from uuid import UUID

import psycopg
from psycopg import sql

from cli.backup.archive import Advance, Dumped
from cli.backup.pg_dump import Tools, access, server_major
from core.change_feed import STAMP
from core.database import connection_string

_PIECE = 1 << 20

# In this order; the reset comes before the last one, which makes the indexes: it need not keep them up to date.
_DATA = ("pre-data", "data")
_INDEXES = ("post-data",)

# What is stale: transaction ids, leases, and how far Argilla was read. The first sweep then reads all answers that
# came after the dump of the platform. Webhooks stay: by their ids ours are found in Argilla, and get the address
# that is right now.
_RESET = f"""
update labels set changed_xid = {STAMP};
update datasets set leader_id = null, leader_until = null, rule_seen_xid = null, events_applied_at = null,
    activity_seen_at = null, difference_seen = null, swept_at = null,
    sweep_position = null, sweep_activity_at = null, sweep_difference = null;
-- uploading -> pending: who had claimed it is not there any more
update texts set status = 'pending', lease_owner = null, lease_until = null, retry_at = null
    where status = 'uploading';
-- running -> waiting: the same
update imports set state = 'waiting', lease_owner = null, lease_until = null where state = 'running';
delete from alerts;
"""  # noqa: S608 - a constant

# Nobody's event may go to where the platform was; the uploader sets the address and enables them.
_RESET_ARGILLA = "update webhooks set enabled = false where id in ({ids});\n"

# Not what an extension owns, nor the sequence of an identity column, which goes with its table.
# By kind: tables with all that hangs on them, then what is left of sequences, views, types and functions.
_REMOVE = """
do $remove$
declare
    found record;
begin
    for found in
        select format('drop %s if exists public.%I cascade', kinds.name, c.relname) as command
        from pg_class c
        join (
            values ('r', 'table'), ('p', 'table'), ('f', 'foreign table'), ('v', 'view'),
                   ('m', 'materialized view'), ('S', 'sequence')
        ) as kinds (kind, name) on kinds.kind = c.relkind::text
        where c.relnamespace = 'public'::regnamespace
            and not exists (
                select from pg_depend d
                where d.classid = 'pg_class'::regclass and d.objid = c.oid and d.deptype in ('e', 'i')
            )
    loop
        execute found.command;
    end loop;
    for found in
        select format('drop type if exists public.%I cascade', t.typname) as command
        from pg_type t
        where t.typnamespace = 'public'::regnamespace and t.typtype in ('e', 'd')
            and not exists (
                select from pg_depend d
                where d.classid = 'pg_type'::regclass and d.objid = t.oid and d.deptype = 'e'
            )
    loop
        execute found.command;
    end loop;
    for found in
        select format('drop routine if exists %s cascade', p.oid::regprocedure) as command
        from pg_proc p
        where p.pronamespace = 'public'::regnamespace
            and not exists (
                select from pg_depend d
                where d.classid = 'pg_proc'::regclass and d.objid = p.oid and d.deptype = 'e'
            )
    loop
        execute found.command;
    end loop;
end
$remove$;
"""

Connection = psycopg.Connection[tuple[object, ...]]


class RestoreRefused(Exception):
    """The database is not one that the archive may be restored into; says why, and what to do."""


class RestoreFailed(Exception):
    """Postgres did not take the dump; the database is as it was. Holds Postgres' words."""


def check_target(url: str, dumped: Dumped, tables: Sequence[str], *, replace: bool) -> int:
    """See that a database may be restored into; return the release of its server.

    `tables` are those that count as data.

    Raises:
        RestoreRefused: the server is older, programs are connected, or there is data and `replace` is false.
        psycopg.OperationalError: Postgres does not answer.
    """
    with psycopg.connect(connection_string(url, "annotate restore"), autocommit=True) as connection:
        major, name = server_major(connection), connection.info.dbname
        if major < dumped.server_major:
            raise RestoreRefused(
                f"The archive is of Postgres {dumped.server_major}, and the server of {name} is Postgres {major}: "
                "an older one does not take it."
            )
        _check_nobody_else(connection)
        if not replace and (held := _list_data(connection, tables)):
            raise RestoreRefused(
                f"The database {name} is not empty: it holds {', '.join(held)}. "
                "Restore into an empty one, or give --replace to lose what it holds."
            )
        return major


def _check_nobody_else(connection: Connection) -> None:
    others = connection.execute("""
        select coalesce(nullif(application_name, ''), 'somebody'), count(*) from pg_stat_activity
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


def restore_platform(tools: Tools, url: str, dump: Path, advance: Advance) -> None:
    """Replace the platform's database by a dump; raises as `_restore` does."""
    _restore(tools, url, dump, _RESET, advance)


def restore_argilla(tools: Tools, url: str, dump: Path, webhooks: Sequence[UUID], advance: Advance) -> None:
    """Replace Argilla's database by a dump, the named webhooks switched off; raises as `_restore` does."""
    ids = ", ".join(f"'{id_}'" for id_ in webhooks)
    _restore(tools, url, dump, _RESET_ARGILLA.format(ids=ids) if ids else "", advance)
    with psycopg.connect(connection_string(url, "annotate restore"), autocommit=True) as connection:
        # The local stack's note that the owner's account has its passwords: it has those of the archive again.
        name = sql.Identifier(connection.info.dbname)
        with suppress(psycopg.errors.InsufficientPrivilege):
            connection.execute(sql.SQL("comment on database {} is null").format(name))


def _restore(tools: Tools, url: str, dump: Path, reset: str, advance: Advance) -> None:
    """Replace a database by a dump; `advance` gets the bytes of the dump that were read.

    Raises:
        RestoreFailed: Postgres did not take it; nothing has changed.
    """
    with access(url) as (target, environment), tempfile.TemporaryFile() as words:
        command = [tools.path("psql"), "-X", "-q", "-v", "ON_ERROR_STOP=1", "--no-password", "-f", "-", target]
        psql = subprocess.Popen(  # noqa: S603 - psql
            command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=words
        )
        assert psql.stdin is not None  # noqa: S101 - a pipe was asked for
        try:
            _say(psql.stdin, f"begin;\nset local client_min_messages = warning;\n{_REMOVE}")
            for section in _DATA:
                _stream(tools, dump, section, psql.stdin, advance if section == "data" else _ignore)
            # The dump leaves an empty search path.
            _say(psql.stdin, f"set local search_path = public;\n{reset}")
            for section in _INDEXES:
                _stream(tools, dump, section, psql.stdin, _ignore)
            _say(psql.stdin, "commit;\n")
            psql.stdin.close()
        except (BrokenPipeError, RestoreFailed) as error:
            _end(psql)
            said = _read(words)
            raise RestoreFailed(f"Nothing was restored: {said or error}") from error
        except BaseException:
            _end(psql)
            raise
        if psql.wait():
            raise RestoreFailed(f"Nothing was restored: {_read(words)}")
    with psycopg.connect(connection_string(url, "annotate restore"), autocommit=True) as connection:
        connection.execute("set statement_timeout = 0")
        connection.execute("analyze")


def _ignore(_: int) -> None:
    return


def _end(psql: subprocess.Popen[bytes]) -> None:
    # Before its input is closed, that is: what it has got so far ends without a commit either way.
    psql.kill()
    psql.wait()
    if psql.stdin is not None:
        with suppress(BrokenPipeError):
            psql.stdin.close()


def _say(stream: IO[bytes], statements: str) -> None:
    stream.write(statements.encode())
    stream.flush()


def _stream(tools: Tools, dump: Path, section: str, target: IO[bytes], advance: Advance) -> None:
    """Write one section of a dump, as statements, to psql.

    Raises:
        RestoreFailed: pg_restore ended with an error.
        BrokenPipeError: psql ended.
    """
    command = [tools.path("pg_restore"), "--no-owner", "--no-privileges", f"--section={section}", "--file=-"]
    with tempfile.TemporaryFile() as words:
        pg_restore = subprocess.Popen(  # noqa: S603 - pg_restore
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=words
        )
        assert pg_restore.stdin is not None  # noqa: S101 - pipes were asked for
        assert pg_restore.stdout is not None  # noqa: S101
        feeding = threading.Thread(target=_feed, args=(dump, pg_restore.stdin, advance), daemon=True)
        feeding.start()
        try:
            for piece in _pieces(pg_restore.stdout):
                target.write(piece)
        except BaseException:
            pg_restore.kill()
            raise
        finally:
            code = pg_restore.wait()
            feeding.join()
            pg_restore.stdout.close()
        if code:
            raise RestoreFailed(f"pg_restore: {_read(words)}")


def _feed(dump: Path, stream: IO[bytes], advance: Advance) -> None:
    # It stops reading when it has what it wants.
    with suppress(BrokenPipeError), dump.open("rb") as file:
        for piece in _pieces(file):
            stream.write(piece)
            advance(len(piece))
    with suppress(BrokenPipeError):
        stream.close()


def _pieces(file: IO[bytes]) -> Iterator[bytes]:
    while piece := file.read(_PIECE):
        yield piece


def _read(words: IO[bytes]) -> str:
    words.seek(0)
    return " ".join(words.read().decode(errors="replace").split())[:1000]
