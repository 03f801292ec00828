"""`annotate export`, run as users run it."""

import json
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import Engine
from typer.testing import CliRunner, Result

from cli import addresses
from cli.main import app
from tests.integration.serving_api.exporting import READ
from tests.integration.serving_api.labelling import Labeller, wait_until
from tests.programs import Program, running

Here = Callable[..., Result]


@pytest.fixture
def serving(database_url: str, engine: Engine, tmp_path: Path) -> Iterator[Program]:
    labeller = Labeller(engine)
    for number in range(20):
        labeller.add_label(f"text {number}", "toxic" if number % 2 else "non_toxic", source=f"forum {number % 3}")
    labeller.add_label("=1+1", source="sheet")
    env = {"DATABASE_URL": database_url, "DATA_DIR": str(tmp_path)}
    with running("serving_api", env, tmp_path / "serving.log", "/readyz") as program:
        yield program


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> Iterator[Here]:
    """Runs the command in this process, which spares its start."""

    def run(url: str, *arguments: str | Path) -> Result:
        monkeypatch.setenv("SERVING_URL", url)
        monkeypatch.setenv("COLUMNS", "200")
        addresses.settings.cache_clear()
        return CliRunner().invoke(app, ["export", *map(str, arguments)])

    yield run
    addresses.settings.cache_clear()


def command(url: str, *arguments: str | Path, **more: Any) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", "cli", "export", *map(str, arguments)],
        env=os.environ | {"COLUMNS": "200", "SERVING_URL": url},
        capture_output=True,
        timeout=120,
        check=False,
        **more,
    )


def said(words: str | bytes) -> str:
    return " ".join((words if isinstance(words, str) else words.decode()).split())


def test_every_format_is_saved_and_filtered(serving: Program, here: Here, tmp_path: Path) -> None:
    items = httpx.get(f"{serving.url}/texts?order=oldest&limit=1000").json()["items"]
    ids = [item["id"] for item in items]
    result = here(serving.url, tmp_path / "all.parquet")
    assert result.exit_code == 0, result.output
    assert f"version {httpx.get(f'{serving.url}/texts').json()['version']} of the labels." in said(result.output)
    for name in ("all.arrow", "all.jsonl", "all.csv"):
        assert here(serving.url, tmp_path / name).exit_code == 0, name
    for name, format_ in {"parquet": "parquet", "arrow": "arrow", "jsonl": "ndjson", "csv": "csv"}.items():
        rows = READ[format_]((tmp_path / f"all.{name}").read_bytes())
        assert [row["id"] for row in rows] == ids
    assert here(serving.url, tmp_path / "x.csv", "--spreadsheet", "--source", "sheet").exit_code == 0
    assert '"\'=1+1"' in (tmp_path / "x.csv").read_text("utf-8-sig")
    names = {path.name for path in tmp_path.iterdir() if path.is_file()}
    assert names == {"all.parquet", "all.arrow", "all.jsonl", "all.csv", "x.csv", "serving.log"}

    filters = ["--label", "toxic", "--label", "non_toxic", "--source", "forum 1", "--order", "newest"]
    filters += [
        "--min-agreement",
        "0.5",
        "--min-annotations",
        "1",
        "--status",
        "labelled",
        "--complete",
        "--annotator",
        "ada",
    ]
    filters += ["--labelled-after", "2020-01-01", "--labelled-before", "2120-01-01", "--q", "TEXT"]
    piped = command(serving.url, "-", "--format", "ndjson", "--dataset", "toxicity", *filters)
    assert piped.returncode == 0, said(piped.stderr)
    lines = [json.loads(line) for line in piped.stdout.splitlines()]
    assert lines == [item for item in items[::-1] if item["source"] == "forum 1"]


def test_what_is_wrong_is_said_and_nothing_saved(serving: Program, here: Here, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "old.csv").write_text("old")
    cases: dict[str, tuple[str, list[str | Path]]] = {
        "'spam' is not one of: toxic, non_toxic.": (serving.url, [out / "old.csv", "--label", "spam"]),
        "say the --format, or let the name end in .parquet,": (serving.url, [out / "x.xlsx"]),
        "No such file or directory. Nothing was saved.": (serving.url, [out / "nowhere" / "x.csv"]),
        "http://127.0.0.1:1/export.csv: [Errno 111] Connection refused. Nothing was saved.": (
            "http://127.0.0.1:1",
            [out / "x.csv"],
        ),
    }
    for words, (url, arguments) in cases.items():
        result = here(url, *arguments)
        assert (result.exit_code, words in said(result.output)) == (1, True), said(result.output)
    full = command(serving.url, out / "old.csv", preexec_fn=_little_space)
    assert full.returncode == 1
    assert "old.csv: File too large. Nothing was saved." in said(full.stderr)
    assert [(path.name, path.read_text()) for path in out.iterdir()] == [("old.csv", "old")]


def test_a_refused_key_is_told(here: Here, tmp_path: Path) -> None:
    body = b'{"code": "missing_key", "detail": "This API key is not valid, or was withdrawn."}'
    head = b"HTTP/1.1 401 Unauthorized\r\nContent-Type: application/problem+json\r\nContent-Length: %d\r\n\r\n"
    with answering(head % len(body), body) as (url, _):
        result = here(url, tmp_path / "x.csv")
    assert (result.exit_code, said(result.output)) == (1, "This API key is not valid, or was withdrawn.")
    assert list(tmp_path.iterdir()) == []


def _little_space() -> None:
    """Let the program fail to write, as on a full disk."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))


@contextmanager
def answering(*parts: bytes) -> Iterator[tuple[str, threading.Event]]:
    """Stand in for a serving API that sends these parts, and breaks off when the event is set."""
    stop = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            client, _ = listener.accept()
            with client:
                client.recv(10_000)
                client.sendall(b"".join(parts))
                stop.wait(60)

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", stop
        stop.set()
        thread.join()


BEGUN = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"%x\r\n%b\r\n" % (300_000, b"{}\n" * 100_000)


def test_an_export_that_breaks_off_leaves_nothing(here: Here, tmp_path: Path) -> None:
    with answering(BEGUN) as (url, stop):
        stop.set()
        result = here(url, tmp_path / "x.ndjson")
    assert result.exit_code == 1
    assert "Nothing was saved." in said(result.output)
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_export_leaves_nothing(tmp_path: Path) -> None:
    with answering(BEGUN) as (url, _):
        process = subprocess.Popen(
            [sys.executable, "-m", "cli", "export", str(tmp_path / "x.ndjson")],
            env=os.environ | {"SERVING_URL": url},
            stderr=subprocess.DEVNULL,
        )
        wait_until(lambda: any(path.stat().st_size for path in tmp_path.iterdir()))
        process.send_signal(signal.SIGINT)
        assert process.wait(20) != 0
    assert list(tmp_path.iterdir()) == []
