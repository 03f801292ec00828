"""The ingestion API through a PgBouncer that pools transactions, with the settings that docs/scaling.md names."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path

import httpx
import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from tests.programs import free_port, running
from tests.waiting import wait_for

PGBOUNCER = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin")

pytestmark = [
    pytest.mark.soak,
    pytest.mark.skipif(PGBOUNCER is None, reason="no pgbouncer here"),
]


@pytest.fixture
def pooled_url(database_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The database through a pooler with three connections."""
    assert PGBOUNCER is not None
    parts, port = conninfo_to_dict(database_url), free_port()
    folder = tmp_path_factory.mktemp("pgbouncer")
    for path in (folder, folder.parent):
        path.chmod(0o711)  # it gives up root, and reads its files as nobody
    (folder / "users").write_text(f'"{parts["user"]}" "{parts["password"]}"\n')
    (folder / "ini").write_text(f"""
[databases]
{parts["dbname"]} = host={parts["host"]} port={parts["port"]}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = scram-sha-256
auth_file = {folder}/users
pool_mode = transaction
default_pool_size = 3
ignore_startup_parameters = options
""")
    account = ["-u", "nobody"] if os.geteuid() == 0 else []
    for file in folder.iterdir():
        file.chmod(0o644)
    command = [PGBOUNCER, "-q", *account, str(folder / "ini")]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    url = f"postgresql://{parts['user']}:{parts['password']}@127.0.0.1:{port}/{parts['dbname']}"
    try:
        wait_for(lambda: _answers(url))
        yield url
    finally:
        process.terminate()
        process.wait()


def _answers(url: str) -> bool:
    with suppress(psycopg.OperationalError), psycopg.connect(url):
        return True
    return False


def test_texts_come_in_through_a_pooler(pooled_url: str, database_url: str, tmp_path: Path) -> None:
    env = {"DATABASE_URL": pooled_url, "DATABASE_PREPARE_STATEMENTS": "false"}
    with (
        running("ingestion_api", env, tmp_path / "log", probe="/readyz") as program,
        httpx.Client(base_url=program.url) as client,
        ThreadPoolExecutor(20) as threads,
    ):

        def post(number: int) -> int:
            return client.post("/texts", json={"text": f"text {number % 300}"}).status_code

        assert sorted(threads.map(post, range(600))) == [200] * 300 + [201] * 300
        body = "".join(f'{{"text": "bulk {number}"}}\n' for number in range(2000))
        headers = {"Content-Type": "application/x-ndjson"}
        for path in ("/texts/bulk", "/texts/bulk?on_error=abort"):
            assert client.post(path, content=body, headers=headers).json()["received"] == 2000
        assert client.post("/imports", content=body + '{"text": "one more"}\n', headers=headers).status_code == 202
        wait_for(lambda: client.get("/imports").json()["items"][0]["state"] == "done")
        assert client.get("/queue").json()["pending"] == 2301
    with psycopg.connect(database_url) as connection:
        assert connection.execute("select count(*) from texts").fetchone() == (2301,)


def test_prepared_statements_do_not_go_with_it(pooled_url: str) -> None:
    with ExitStack() as stack:
        connections = [stack.enter_context(psycopg.connect(pooled_url, autocommit=True)) for _ in range(2)]

        def ask() -> None:
            for connection in connections * 20:
                connection.execute("select %s::int", [1])

        with pytest.raises(psycopg.errors.DatabaseError, match="prepared statement"):
            ask()
