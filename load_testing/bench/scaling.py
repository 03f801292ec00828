"""The figures behind docs/scaling.md: API processes behind nginx, and the bytes of a text in each store."""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import count
from pathlib import Path

import orjson
import psutil
import psycopg

from load_testing.bench.harness import (
    FigureColumn,
    FigureTable,
    Sample,
    Server,
    api_environment,
    folder_bytes,
    get_all,
    post_all,
    processor_seconds,
    running,
    serving,
)
from load_testing.bench.ingestion_rates import make_submissions
from load_testing.bench.replica_rows import build_index
from load_testing.targets import add_demo_texts, is_ok, wait_until_served
from local_stack.ports import reserved_ports
from local_stack.testing import RunningStack

_COUNTS = (1, 2, 4)
_CLIENTS = 64
# Numbers of requests and texts. `make bench ROWS=` lowers those that are above it.
_REQUESTS = 4000
_TEXTS = 20_000
_ANNOTATORS = 3
_NUMBERS = count()
_SPENDERS = ("APIs", "nginx", "Postgres", "clients")

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
            # The APIs without keys refuse other hosts than this machine.
            proxy_set_header Host $host;
        }}
    }}
}}
"""


def measure_nginx(stack: RunningStack, rows: int) -> FigureTable:
    """Measure single POSTs and pages with one process, and with 1, 2 and 4 processes behind one nginx.

    Each process has a separate port and folder, as on separate machines.
    """
    columns = (
        FigureColumn("1/s", "rate"),
        FigureColumn("p50 ms", "p50", ".1f"),
        FigureColumn("p99 ms", "p99", ".1f"),
        *(FigureColumn(name, name) for name in _SPENDERS),
    )
    title = f"{_CLIENTS} clients; core ms for 1,000 requests by who spends them"
    table = FigureTable(title, ("what", "processes"), columns)
    binary = _find_nginx()
    if binary is None:
        table.caption = "Not measured: there is no nginx here (Debian: nginx-light)."
        return table
    url = stack.database_url
    for program, send_all in (("ingestion_api", _post), ("serving_api", _get)):
        if program == "serving_api":
            with psycopg.connect(url) as connection:
                connection.execute("truncate texts")  # demo texts need an empty table
            add_demo_texts(url, min(_TEXTS, rows))
        with ExitStack() as opened:
            servers = [opened.enter_context(_api(program, url)) for _ in range(max(_COUNTS))]
            send = partial(send_all, min(_REQUESTS, rows))
            send(servers[0].url)  # warms up
            measure = partial(_measure, send, _postmaster(url))
            table.add((f"{program}, no nginx", "1"), [measure(servers[:1], None)])
            for number in _COUNTS:
                with _running_nginx(binary, [one.url for one in servers[:number]]) as proxy:
                    table.add((program, str(number)), [measure(servers[:number], proxy)])
        table.add_section()
    return table


def _find_nginx() -> str | None:
    """Return the path of nginx, or None if the machine has none."""
    return shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")


@contextmanager
def _running_nginx(binary: str, urls: Sequence[str]) -> Iterator[Server]:
    """Run nginx in front of API processes at these addresses."""
    with tempfile.TemporaryDirectory() as folder, reserved_ports(1) as [port]:
        servers = "\n        ".join(f"server {url.removeprefix('http://')};" for url in urls)
        file = Path(folder) / "nginx.conf"
        file.write_text(_NGINX.format(folder=folder, servers=servers, port=port))
        command = [binary, "-p", folder, "-c", str(file), "-g", "daemon off;"]
        url = f"http://127.0.0.1:{port}"
        with running(command, lambda: is_ok(f"{url}/healthz")) as process:
            yield Server(url, process.pid)


def _post(count: int, url: str) -> Sample:
    return post_all(f"{url}/texts", list(map(orjson.dumps, make_submissions(count))), _CLIENTS)


def _get(count: int, url: str) -> Sample:
    # Each request has another filter, also in later runs: no response comes from the cache.
    return get_all(url, [f"/texts?limit=20&min_agreement=0.{next(_NUMBERS):06}" for _ in range(count)], _CLIENTS)


@contextmanager
def _api(program: str, database_url: str) -> Iterator[Server]:
    with tempfile.TemporaryDirectory() as folder:
        env = {"DATA_DIR": folder, "SERVING_SEARCH_INDEX": "false", **api_environment(database_url)}
        with serving([program], env, "/readyz") as server:
            yield server


def _postmaster(database_url: str) -> int:
    with psycopg.connect(database_url) as connection:
        parent = psutil.Process(connection.info.backend_pid).parent()
    if parent is None:
        raise RuntimeError("Postgres is not on this machine")
    return parent.pid


def _measure(
    send: Callable[[str], Sample], postmaster: int, servers: Sequence[Server], proxy: Server | None
) -> Sample:
    """Send the requests; the sample also has the processor time per request of each spender."""

    def spent() -> list[float]:
        apis = sum(processor_seconds(server.pid) for server in servers)
        nginx = processor_seconds(proxy.pid) if proxy else 0.0
        return [apis, nginx, processor_seconds(postmaster), time.process_time()]

    before = spent()
    sample = send((proxy or servers[0]).url)
    differences = zip(_SPENDERS, before, spent(), strict=True)
    return sample | {name: (late - early) * 1e6 / sample["requests"] for name, early, late in differences}


_BYTES_COLUMNS = (
    FigureColumn("bytes a text", "bytes"),
    FigureColumn("s", "seconds", ".1f"),
    FigureColumn("texts/s", "rate"),
)


def measure_bytes(stack: RunningStack, texts: int) -> FigureTable:
    """Fill an empty database with labelled texts, build everything from it, and weigh each store."""
    table = FigureTable(f"{texts:,} texts, {_ANNOTATORS} annotations each", ("what",), _BYTES_COLUMNS)
    url = stack.database_url
    add_demo_texts(url, texts, _ANNOTATORS)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("vacuum (analyze)")
        for name in ("texts", "annotations", "labels"):
            for part in ("table", "indexes"):
                [(size,)] = connection.execute(f"select pg_{part}_size('{name}')").fetchall()
                table.add((f"Postgres, {name}: {part}",), [{"bytes": size / texts}])

    def add(what: str, started: float, size: int | None = None) -> None:
        seconds = time.perf_counter() - started
        weight = {} if size is None else {"bytes": size / texts}
        table.add((what,), [weight | {"seconds": seconds, "rate": texts / seconds}])

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        env = {"DATA_DIR": name, "SERVING_SEARCH_INDEX": "false", **api_environment(url)}
        started = time.perf_counter()
        with serving(["serving_api"], env) as server:
            wait_until_served(server.url, texts, seconds=1800)
            add("replica (DuckDB)", started, folder_bytes(folder, "replica*"))
        started = time.perf_counter()
        build_index(folder)
        add("search index", started, folder_bytes(folder / "serving" / "search"))
    with tempfile.TemporaryDirectory() as name:
        parts = ("--without-argilla", "--without-snapshots")
        started = time.perf_counter()
        _annotate(url, "backup", name, *parts)
        add("annotate backup", started, folder_bytes(Path(name), "*.dump"))
        [archive] = Path(name).glob("annotation-platform-*")
        started = time.perf_counter()
        _annotate(url, "restore", str(archive), "--replace", *parts)
        add("annotate restore", started)
    return table


def _annotate(database_url: str, *arguments: str) -> None:
    env = os.environ | {"DATABASE_URL": database_url}
    command = [sys.executable, "-m", "cli", *arguments]
    subprocess.run(command, env=env, check=True, stderr=subprocess.DEVNULL)  # noqa: S603 - our own program
