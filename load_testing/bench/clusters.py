"""Postgres servers that have postgres_fdw, which the local stack's has not: a distribution's own."""

import os
import secrets
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psycopg
from pydantic import SecretStr

from core.migrate import migrate
from core.settings import DatabaseSettings
from load_testing.bench.servers import free_port
from local_stack.components.server_tools import account_for_postgres

_DEBIAN = Path("/usr/lib/postgresql")
_START_SECONDS = 60


def find_postgres_with_fdw() -> Path | None:
    """Return the folder of the newest Postgres' programs that can have foreign tables; None if there is none."""
    found = [
        folder
        for folder in _DEBIAN.glob("*/bin")
        if Path("/usr/share/postgresql", folder.parent.name, "extension", "postgres_fdw.control").exists()
        and (folder / "postgres").exists()
    ]
    return max(found, key=lambda folder: int(folder.parent.name), default=None)


@contextmanager
def clusters(binaries: Path, count: int) -> Iterator[list[str]]:
    """Give the addresses of so many new servers, each with the platform's schema in its database `postgres`."""
    with ExitStack() as stack:
        # Not in a folder that only root may enter.
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="clusters-")))
        folder.chmod(0o711)
        urls = [stack.enter_context(_cluster(binaries, folder / str(number))) for number in range(count)]
        for url in urls:
            migrate(DatabaseSettings(url=SecretStr(url)))
        yield urls


@contextmanager
def _cluster(binaries: Path, data: Path) -> Iterator[str]:
    account = account_for_postgres()
    identity = {"user": account.uid, "group": account.gid, "extra_groups": []} if account else {}
    password, port = secrets.token_urlsafe(24), free_port()
    data.mkdir(mode=0o700)
    secret = data.with_suffix(".password")
    secret.touch(mode=0o600)
    secret.write_text(password)
    if account:
        for path in (data, secret):
            os.chown(path, account.uid, account.gid)
    initdb = [binaries / "initdb", "-D", data, "-U", "postgres", "-A", "scram-sha-256", "--pwfile", secret]
    # No locale data is needed.
    command = [*map(str, initdb), "--locale=C", "--encoding=UTF8", "--no-sync"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=data, **identity)  # type: ignore[call-overload] # noqa: S603
    options = [f"port={port}", "listen_addresses=127.0.0.1", "unix_socket_directories=", "fsync=off"]
    server = [str(binaries / "postgres"), "-D", str(data), *(part for one in options for part in ("-c", one))]
    process = subprocess.Popen(  # type: ignore[call-overload] # noqa: S603 - Postgres
        server, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=data, **identity
    )
    url = f"postgresql://postgres:{password}@127.0.0.1:{port}/postgres"
    try:
        _wait(url)
        yield url
    finally:
        process.terminate()
        process.wait()


def _wait(url: str) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while True:
        try:
            psycopg.connect(url, connect_timeout=2).close()
        except psycopg.OperationalError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)
        else:
            return
