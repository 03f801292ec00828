"""The service is killed, or its client leaves, while a snapshot is written."""

import random
import socket
import time
from pathlib import Path
from urllib.parse import urlsplit

import httpx

from load_testing.bench.replica_rows import make_replica
from tests.integration.serving_api.labelling import wait_until
from tests.programs import running

_ROWS = 60_000


def _environment(folder: Path) -> dict[str, str]:
    make_replica(folder / "serving" / "replica.duckdb", _ROWS)
    # No server listens there: the replica serves its data.
    return {"DATABASE_URL": "postgresql://nobody@127.0.0.1:1/none", "DATA_DIR": str(folder)}


def _ask(url: str, name: str) -> socket.socket:
    """Send a request for a snapshot, and do not wait for its answer."""
    target = urlsplit(url)
    client = socket.create_connection((target.hostname, target.port or 80))
    body = b'{"name": "%b"}' % name.encode()
    client.sendall(
        b"POST /snapshots HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
    )
    return client


def test_killed_while_writing_it_leaves_nothing_half_visible(tmp_path: Path) -> None:
    environment, root, log = _environment(tmp_path), tmp_path / "snapshots", tmp_path / "log"
    with running("serving_api", environment, log) as program:
        url = program.url
        wait_until(lambda: httpx.get(f"{url}/stats").is_success)
        with _ask(url, "one"):
            wait_until(lambda: any(root.glob(".writing-*/data/*")))
            time.sleep(random.uniform(0, 0.2))  # noqa: S311
            program.kill()
    assert not (root / "one").exists() or (root / "one" / "snapshot.json").exists()
    with running("serving_api", environment, log) as program:
        url = program.url
        wait_until(lambda: httpx.get(f"{url}/stats").is_success)
        left = [item["name"] for item in httpx.get(f"{url}/snapshots").json()["items"]]
        assert left in ([], ["one"])
        made = httpx.post(f"{url}/snapshots", json={"name": "one"}, timeout=60)
        assert made.status_code == (200 if left else 201)
        assert sum(split["rows"] for split in made.json()["splits"].values()) == _ROWS
        # What the killed one left is gone.
        assert sorted(path.name for path in root.iterdir()) == [".lock", "one"]
        with _ask(url, "two"):
            wait_until(lambda: any(root.glob(".writing-*")))
        # The client has left.
        wait_until(lambda: httpx.get(f"{url}/snapshots/two").is_success)
