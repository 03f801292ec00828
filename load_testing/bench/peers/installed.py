"""Peers that are installed from a lock (ROAPI, Datasette) or found on the machine (nginx, Postgres)."""

import hashlib
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psycopg
from pydantic import SecretStr
from uv import find_uv_bin

from core.migrate import migrate
from core.settings import DatabaseSettings
from load_testing.bench.servers import Server, free_port, running
from load_testing.targets import is_ok
from local_stack.components.server_tools import account_for_postgres
from local_stack.settings import StackSettings

_LOCKS = Path(__file__).parent
_DEBIAN = Path("/usr/lib/postgresql")

_NGINX = """
worker_processes 1;
pid {folder}/pid;
error_log stderr error;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    upstream apis {{
        least_conn;
        {servers}
        keepalive 256;
        keepalive_requests 100000;
    }}
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        keepalive_requests 100000;
        client_body_buffer_size 128k;
        location / {{
            proxy_pass http://apis;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
        }}
    }}
}}
"""


def install_peer(name: str) -> Path:
    """Return the folder with the programs of `name.lock` in this folder."""
    return install(_LOCKS / f"{name}.lock")


def install(lock: Path) -> Path:
    """Return the folder with the programs that a hashed lock pins. Installs them once per machine.

    Raises:
        subprocess.CalledProcessError: the packages could not be installed; its `stderr` has the reason.
    """
    key = hashlib.sha256(lock.read_bytes() + sys.version.encode()).hexdigest()[:16]
    environment = StackSettings().cache_dir / "bench" / f"{lock.stem}-{key}"
    if not environment.exists():
        unfinished = environment.with_name(f"{environment.name}.unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        _run_uv("venv", "--python", sys.executable, "--relocatable", unfinished)
        python = unfinished / "bin" / "python"
        _run_uv("pip", "install", "--python", python, "--require-hashes", "--requirements", lock)
        unfinished.rename(environment)
    return environment / "bin"


def _run_uv(*arguments: str | Path) -> None:
    env = {name: value for name, value in os.environ.items() if name != "VIRTUAL_ENV"}
    command = [find_uv_bin(), *arguments]
    subprocess.run(command, env=env, check=True, capture_output=True, text=True)  # noqa: S603 - uv, and our lock


def find_nginx() -> str | None:
    """Return the path of nginx, or None if the machine has none."""
    return shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")


@contextmanager
def running_nginx(binary: str, urls: Sequence[str]) -> Iterator[Server]:
    """Run nginx in front of API processes at these addresses."""
    with tempfile.TemporaryDirectory() as folder:
        port = free_port()
        servers = "\n        ".join(f"server {url.removeprefix('http://')};" for url in urls)
        file = Path(folder) / "nginx.conf"
        file.write_text(_NGINX.format(folder=folder, servers=servers, port=port))
        url = f"http://127.0.0.1:{port}"
        command = [binary, "-p", folder, "-c", str(file), "-g", "daemon off;"]
        with running(command, lambda: is_ok(f"{url}/healthz")) as process:
            yield Server(url, process.pid)


def find_postgres_with_fdw() -> Path | None:
    """Return the folder with the programs of the newest Postgres that has postgres_fdw; None if there is none.

    The local stack's Postgres has no postgres_fdw; a distribution's has.
    """
    found = [
        folder
        for folder in _DEBIAN.glob("*/bin")
        if Path("/usr/share/postgresql", folder.parent.name, "extension", "postgres_fdw.control").exists()
        and (folder / "postgres").exists()
    ]
    return max(found, key=lambda folder: int(folder.parent.name), default=None)


@contextmanager
def postgres_clusters(binaries: Path, count: int) -> Iterator[list[str]]:
    """Give the addresses of `count` new servers, each with the platform's schema in its database `postgres`."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="clusters-")))
        # Postgres runs under another account and must be able to enter.
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
    url = f"postgresql://postgres:{password}@127.0.0.1:{port}/postgres"
    with running(server, lambda: _accepts(url), cwd=data, **identity):
        yield url


def _accepts(url: str) -> bool:
    try:
        psycopg.connect(url, connect_timeout=2).close()
    except psycopg.OperationalError:
        return False
    return True
