"""N processes of each API behind nginx, as on N machines: answers a second, and whose processor time they take."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import count
from pathlib import Path
from typing import NamedTuple

import orjson
import psutil
import psycopg
from rich.table import Table

from load_testing.bench.comments import make_submissions
from load_testing.bench.http_load import Load, get_all, post_all
from load_testing.bench.servers import Server, api_environment, free_port, serving
from load_testing.targets import holds_within, is_ok

_COUNTS = (1, 2, 4)
_CLIENTS = 64
_POSTS = 4000
_GETS = 4000
_TEXTS = 20_000
_BUILD_SECONDS = 300
_NUMBERS = count()

_CONFIGURATION = """
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


class _Setup(NamedTuple):
    """What is measured."""

    what: str
    servers: Sequence[Server]
    proxy: Server | None
    postmaster: int

    def cpu_seconds(self) -> list[float]:
        """Return the processor time so far of the APIs, nginx, Postgres and this process."""
        apis = [server.pid for server in self.servers]
        groups = [apis, [self.proxy.pid] if self.proxy else [], [self.postmaster]]
        return [*(_cpu(pids, children=True) for pids in groups), _cpu([os.getpid()], children=False)]


def measure(database_url: str, _rows: int) -> Table:
    """Measure single POSTs and pages with ever more processes behind one nginx, and one process without it."""
    title = f"{_CLIENTS} clients; core ms for 1,000 requests by who spends them"
    table = Table(
        "what", "processes", "1/s", "p50 ms", "p99 ms", "APIs", "nginx", "Postgres", "clients", title=title
    )
    binary = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    if binary is None:
        table.caption = "Not measured: there is no nginx here (Debian: nginx-light)."
        return table
    postmaster = _postmaster(database_url)
    for program, send in (("ingestion_api", _post), ("serving_api", _get)):
        if program == "serving_api":
            _fill(database_url)
        with ExitStack() as stack:
            servers = [stack.enter_context(_api(program, database_url)) for _ in range(max(_COUNTS))]
            for server in servers:
                _wait(server, program)
            send(servers[0].url)  # warms up
            plain = _Setup(f"{program}, no nginx", servers[:1], None, postmaster)
            _add(table, plain, send)
            for number in _COUNTS:
                with nginx(binary, [one.url for one in servers[:number]]) as proxy:
                    _add(table, _Setup(program, servers[:number], proxy, postmaster), send)
        table.add_section()
    return table


def _post(url: str) -> Load:
    return post_all(f"{url}/texts", list(map(orjson.dumps, make_submissions(_POSTS))), _CLIENTS)


def _get(url: str) -> Load:
    # Each asks for something else, in each run again: the cache of answers does not help.
    return get_all(url, [f"/texts?limit=20&min_agreement=0.{next(_NUMBERS):06}" for _ in range(_GETS)], _CLIENTS)


@contextmanager
def nginx(binary: str, urls: Sequence[str]) -> Iterator[Server]:
    """Run nginx before these addresses."""
    with tempfile.TemporaryDirectory() as name:
        folder, port = Path(name), free_port()
        servers = "\n        ".join(f"server {url.removeprefix('http://')};" for url in urls)
        file = folder / "nginx.conf"
        file.write_text(_CONFIGURATION.format(folder=folder, servers=servers, port=port))
        command = [binary, "-p", name, "-c", str(file), "-g", "daemon off;"]
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL)  # noqa: S603 - nginx
        try:
            server = Server(f"http://127.0.0.1:{port}", process.pid)
            _wait(server, "nginx")
            yield server
        finally:
            process.terminate()
            process.wait()


@contextmanager
def _api(program: str, database_url: str) -> Iterator[Server]:
    with tempfile.TemporaryDirectory() as folder:
        env = {"DATA_DIR": folder, "SERVING_SEARCH_INDEX": "false", **api_environment(database_url)}
        with serving([program], env) as server:
            yield server


def _wait(server: Server, program: str) -> None:
    path = "/healthz" if program == "nginx" else "/readyz"
    if not holds_within(_BUILD_SECONDS, lambda: is_ok(f"{server.url}{path}")):
        raise RuntimeError(f"{program} is not ready")


def _fill(database_url: str) -> None:
    # Into an empty database only.
    with psycopg.connect(database_url) as connection:
        connection.execute("truncate texts")
    command = [sys.executable, "-m", "cli", "demo-data", "--texts", str(_TEXTS)]
    env = os.environ | {"DATABASE_URL": database_url}
    subprocess.run(command, env=env, check=True, stderr=subprocess.DEVNULL)  # noqa: S603 - our own program


def _postmaster(database_url: str) -> int:
    with psycopg.connect(database_url) as connection:
        parent = psutil.Process(connection.info.backend_pid).parent()
    if parent is None:
        raise RuntimeError("Postgres is not on this machine")
    return parent.pid


def _add(table: Table, setup: _Setup, send: Callable[[str], Load]) -> None:
    before = setup.cpu_seconds()
    load = send((setup.proxy or setup.servers[0]).url)
    after = setup.cpu_seconds()
    number = len(load.latencies_seconds)
    spent = [f"{(late - early) * 1e6 / number:,.0f}" for early, late in zip(before, after, strict=True)]
    rate = f"{load.requests_per_second:,.0f}"
    latencies = (f"{load.quantile_ms(share):.1f}" for share in (0.5, 0.99))
    table.add_row(setup.what, str(len(setup.servers)), rate, *latencies, *spent)


def _cpu(pids: Sequence[int], *, children: bool) -> float:
    total = 0.0
    for pid in pids:
        process = psutil.Process(pid)
        for member in [process, *(process.children(recursive=True) if children else [])]:
            try:
                times = member.cpu_times()
            except psutil.NoSuchProcess:
                continue
            total += times.user + times.system
    return total
