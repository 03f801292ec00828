"""`annotate export`, run as users run it."""

import json
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from pyarrow import parquet
from pydantic import SecretStr
from sqlalchemy import Engine, create_engine

from core.settings import DatabaseSettings
from tests.integration.serving_api.labelling import Labeller, wait_until
from tests.programs import Program, running


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    engine = create_engine(DatabaseSettings(url=SecretStr(database_url)).sqlalchemy_url)
    yield engine
    engine.dispose()


@pytest.fixture
def serving(database_url: str, engine: Engine, tmp_path: Path) -> Iterator[Program]:
    labeller = Labeller(engine)
    for number in range(20):
        labeller.add_label(f"text {number}", "toxic" if number % 2 else "non_toxic", source=f"forum {number % 3}")
    labeller.add_label("=1+1", source="sheet")
    env = {"DATABASE_URL": database_url, "DATA_DIR": str(tmp_path)}
    with running("serving_api", env, tmp_path / "serving.log", "/readyz") as program:
        yield program


def command(url: str, *arguments: str | Path, **more: Any) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", "cli", "export", *map(str, arguments)],
        env=os.environ | {"COLUMNS": "200", "SERVING_URL": url},
        capture_output=True,
        timeout=120,
        check=False,
        **more,
    )


def said(result: subprocess.CompletedProcess[bytes]) -> str:
    return " ".join(result.stderr.decode().split())


def test_every_format_is_saved_and_filtered(serving: Program, tmp_path: Path) -> None:
    items = httpx.get(f"{serving.url}/texts?order=oldest&limit=1000").json()["items"]
    result = command(serving.url, tmp_path / "all.parquet")
    assert result.returncode == 0, said(result)
    assert parquet.read_table(tmp_path / "all.parquet").column("id").to_pylist() == [item["id"] for item in items]
    assert f"version {httpx.get(f'{serving.url}/texts').json()['version']} of the labels." in said(result)
    filters = ["--label", "toxic", "--label", "non_toxic", "--source", "forum 1", "--order", "newest"]
    filters += ["--min-agreement", "0.5", "--min-annotations", "1", "--status", "labelled", "--annotator", "ada"]
    filters += ["--labelled-after", "2020-01-01", "--labelled-before", "2120-01-01", "--q", "TEXT"]
    result = command(serving.url, "-", "--format", "ndjson", "--dataset", "toxicity", *filters)
    assert result.returncode == 0, said(result)
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    assert rows == [item for item in items[::-1] if item["source"] == "forum 1"]
    assert command(serving.url, tmp_path / "x.csv", "--spreadsheet", "--source", "sheet").returncode == 0
    assert '"\'=1+1"' in (tmp_path / "x.csv").read_text("utf-8-sig")
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == [
        "all.parquet",
        "serving.log",
        "x.csv",
    ]


def test_what_is_wrong_is_said_and_nothing_saved(serving: Program, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "old.csv").write_text("old")
    cases: dict[str, list[str | Path]] = {
        "'spam' is not one of: toxic, non_toxic.": [out / "old.csv", "--label", "spam"],
        "say the --format, or let the name end in .parquet,": [out / "x.xlsx"],
        "No such file or directory. Nothing was saved.": [out / "nowhere" / "x.csv"],
    }
    for words, arguments in cases.items():
        result = command(serving.url, *arguments)
        assert (result.returncode, words in said(result)) == (1, True), said(result)
    result = command("http://127.0.0.1:1", out / "x.csv")
    assert result.returncode == 1
    assert "http://127.0.0.1:1/export.csv: [Errno 111] Connection refused. Nothing was saved." in said(result)
    result = command(serving.url, out / "old.csv", preexec_fn=_little_space)
    assert result.returncode == 1
    assert "old.csv: File too large. Nothing was saved." in said(result)
    assert [(path.name, path.read_text()) for path in out.iterdir()] == [("old.csv", "old")]


def _little_space() -> None:
    """Let the program fail to write, as on a full disk."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))


@contextmanager
def sending(*pieces: bytes) -> Iterator[tuple[str, threading.Event]]:
    """Stand in for a serving API that sends these pieces, and breaks off when the event is set."""
    stop = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            client, _ = listener.accept()
            with client:
                client.recv(10_000)
                client.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
                for piece in pieces:
                    client.sendall(b"%x\r\n%b\r\n" % (len(piece), piece))
                stop.wait(60)

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", stop
        stop.set()
        thread.join()


def test_an_export_that_breaks_off_leaves_nothing(tmp_path: Path) -> None:
    with sending(b"{}\n" * 1000) as (url, stop):
        stop.set()
        result = command(url, tmp_path / "x.ndjson")
    assert result.returncode == 1
    assert "Nothing was saved." in said(result)
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_export_leaves_nothing(tmp_path: Path) -> None:
    with sending(b"{}\n" * 100_000) as (url, _):
        process = subprocess.Popen(
            [sys.executable, "-m", "cli", "export", str(tmp_path / "x.ndjson")],
            env=os.environ | {"SERVING_URL": url},
            stderr=subprocess.DEVNULL,
        )
        wait_until(lambda: any(path.stat().st_size for path in tmp_path.iterdir()))
        process.send_signal(signal.SIGINT)
        assert process.wait(20) != 0
    assert list(tmp_path.iterdir()) == []
