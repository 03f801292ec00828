"""The two databases of a backup: reads for a dump, checks before a restore, and the reset after it."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from uuid import UUID

import psycopg
from psycopg import sql

from cli.backup.archive import BackupError, Dumped
from core.connections import connection_string
from core.models.labels import STAMP

FORGOTTEN_TEXTS = "select text_id from forget_requests where lifted_at is null order by text_id"

# The tables whose rows are counted, by database.
TABLES = {
    "platform": ("texts", "annotations", "labels", "imports", "api_keys", "forget_requests"),
    "argilla": ("users", "workspaces", "datasets", "records", "responses", "webhooks"),
}
# Those that count as data. Argilla or the uploader creates the rows of Argilla's others.
_DATA = {"platform": TABLES["platform"], "argilla": ("users", "records", "responses")}

# Stale after a restore: transaction ids, leases, and how far Argilla was read. The first sweep then reads all
# answers that Argilla got after the platform's dump. Webhooks stay: their ids identify ours in Argilla, and the
# uploader sets their present address.
RESET_PLATFORM = f"""
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


def reset_argilla(webhooks: Sequence[UUID]) -> str:
    """Return statements for Argilla's database after a restore.

    Argilla must not send events to the platform's former address: the uploader sets the address and enables them.
    The local stack notes in the database's comment that the owner has its passwords. Now the owner has the
    archive's.
    """
    ids = ", ".join(f"'{id_}'" for id_ in webhooks)
    disable = f"update webhooks set enabled = false where id in ({ids});\n" if ids else ""  # noqa: S608 - UUIDs
    return f"""{disable}
do $forget$
begin
    execute format('comment on database %I is null', current_database());
exception when insufficient_privilege then
    null;
end
$forget$;
"""


def connect(url: str, *, autocommit: bool = False) -> psycopg.Connection[tuple[Any, ...]]:
    """Connect to one of the databases. Raises psycopg.OperationalError: Postgres does not answer."""
    return psycopg.connect(connection_string(url, "annotate backup"), autocommit=autocommit)


def server_major(connection: psycopg.Connection[Any]) -> int:
    """Return the release of the server, as 18."""
    return connection.info.server_version // 10_000


@contextmanager
def one_moment(url: str) -> Iterator[tuple[psycopg.Connection[tuple[Any, ...]], str]]:
    """Give a connection with a snapshot of the database, and the name of that snapshot for pg_dump.

    The transaction only reads. It delays VACUUM, but neither writers nor the change feed.
    """
    with connect(url, autocommit=True) as connection:
        for name in ("statement_timeout", "idle_in_transaction_session_timeout", "transaction_timeout"):
            if name != "transaction_timeout" or server_major(connection) >= 17:
                connection.execute(sql.SQL("set {} = 0").format(sql.Identifier(name)))
        connection.execute("begin isolation level repeatable read read only")
        [(snapshot,)] = connection.execute("select pg_export_snapshot()").fetchall()
        yield connection, snapshot
        connection.execute("rollback")


def describe(connection: psycopg.Connection[Any], database: str, pg_dump_major: int) -> Dumped:
    """Return times, versions and row counts of the database in the connection's snapshot.

    Raises:
        BackupError: a table is missing, so this is another database.
    """
    [(taken_at,)] = connection.execute("select now()").fetchall()
    try:
        rows = {table: count(connection, table) for table in TABLES[database]}
        revisions = connection.execute("select version_num from alembic_version").fetchall()
    except psycopg.errors.UndefinedTable as error:
        name = connection.info.dbname
        raise BackupError(
            f"The database {name} is not the one that is meant: {error.diag.message_primary}."
        ) from error
    return Dumped(
        taken_at=taken_at,
        server_major=server_major(connection),
        pg_dump_major=pg_dump_major,
        revision=revisions[0][0] if revisions else None,
        rows=rows,
    )


def count(connection: psycopg.Connection[Any], table: str) -> int:
    """Return the number of rows of a table."""
    query = sql.SQL("select count(*) from public.{}").format(sql.Identifier(table))
    [(rows,)] = connection.execute(query).fetchall()
    return int(rows)


def check_target(url: str, database: str, dumped: Dumped, *, replace: bool) -> int:
    """Check that a database may be restored into; return the major release of its server.

    A database with data needs `replace`.

    Raises:
        BackupError: the server is older, programs are connected, or there is data and `replace` is false.
        psycopg.OperationalError: Postgres does not answer.
    """
    with connect(url, autocommit=True) as connection:
        major, name = server_major(connection), connection.info.dbname
        if major < dumped.server_major:
            raise BackupError(
                f"The archive is of Postgres {dumped.server_major}, and the server of {name} is Postgres {major}: "
                "an older server cannot restore it."
            )
        _check_no_programs(connection)
        if not replace and (held := _list_data(connection, _DATA[database])):
            raise BackupError(
                f"The database {name} is not empty: it holds {', '.join(held)}. "
                "Restore into an empty one, or give --replace to lose what it holds."
            )
        return major


def _check_no_programs(connection: psycopg.Connection[Any]) -> None:
    others = connection.execute("""
        select coalesce(nullif(application_name, ''), 'unnamed'), count(*) from pg_stat_activity
        where datname = current_database() and pid <> pg_backend_pid() and backend_type = 'client backend'
        group by 1 order by 1
    """).fetchall()
    if others:
        named = ", ".join(f"{program} ({number})" for program, number in others)
        raise BackupError(
            f"Programs are connected to {connection.info.dbname}: {named}. Stop all but Postgres first."
        )


def _list_data(connection: psycopg.Connection[Any], tables: Sequence[str]) -> list[str]:
    query = "select tablename from pg_tables where schemaname = 'public' and tablename = any(%s)"
    there = {name for (name,) in connection.execute(query, [list(tables)])}
    rows = {table: count(connection, table) for table in tables if table in there}
    # A new Argilla has an owner.
    return [f"{number:,} {table}" for table, number in rows.items() if number > (table == "users")]
