"""`annotate snapshot` reports the faults of a copy."""

import hashlib
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet
from typer.testing import CliRunner

from cli import addresses
from cli.main import app
from cli.snapshot import disjoint_complaints

_SPLITS = {"train": ["a", "b", "c"], "test": ["d"]}


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    (tmp_path / "data").mkdir()
    for name, ids in _SPLITS.items():
        parquet.write_table(
            pa.table({"id": ids, "label": ["toxic"] * len(ids)}), tmp_path / f"data/{name}.parquet"
        )
    return tmp_path


@pytest.fixture
def manifest(copy: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """What the service says of the snapshot."""
    splits = {}
    for name, ids in _SPLITS.items():
        content = (copy / f"data/{name}.parquet").read_bytes()
        splits[name] = {
            "path": f"data/{name}.parquet",
            "rows": len(ids),
            "bytes": len(content),
            "sha256": hashlib.sha256(content).hexdigest(),
            "labels": {"toxic": len(ids)},
        }
    manifest = {"name": "one", "splits": splits}
    with serving({"/snapshots/one": manifest}) as url:
        monkeypatch.setenv("SERVING_URL", url)
        addresses.settings.cache_clear()
        yield manifest
    addresses.settings.cache_clear()


@contextmanager
def serving(answers: Mapping[str, Any]) -> Iterator[str]:
    """Answer requests with JSON, by path."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = json.dumps(answers[self.path]).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Quiet."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def verify(copy: Path) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["snapshot", "verify", "one", "--folder", str(copy)])
    return result.exit_code, result.output


@pytest.mark.usefixtures("manifest")
def test_a_copy_that_is_whole_is_right(copy: Path) -> None:
    code, said = verify(copy)
    assert (code, "as its manifest says" in said) == (0, True)


@pytest.mark.usefixtures("manifest")
def test_a_changed_byte_is_told(copy: Path) -> None:
    file = copy / "data" / "train.parquet"
    content = bytearray(file.read_bytes())
    content[4] ^= 1
    file.write_bytes(content)
    code, said = verify(copy)
    assert code == 1
    assert "train: has the SHA-256" in said


@pytest.mark.usefixtures("manifest")
def test_a_missing_file_and_rubbish_are_told(copy: Path) -> None:
    (copy / "data" / "train.parquet").write_bytes(b"rubbish")
    (copy / "data" / "test.parquet").unlink()
    code, said = verify(copy)
    assert code == 1
    assert "train: cannot be read as Parquet" in said
    assert "test: cannot be read" in said


def test_other_rows_and_labels_than_the_manifest_has_are_told(copy: Path, manifest: dict[str, Any]) -> None:
    manifest["splits"]["train"] |= {"rows": 4, "labels": {"toxic": 2, "non_toxic": 1}}
    code, said = verify(copy)
    assert code == 1
    assert "train: holds 3 texts, not 4" in said
    assert "train: has these labels" in said


def test_a_text_in_two_splits_is_told() -> None:
    ids = {"train": pa.array(["a", "b"]), "test": pa.array(["b", "c"]), "validation": pa.array(["d"])}
    assert disjoint_complaints(ids) == ["train and test have 1 texts in common"]


@pytest.mark.parametrize("share", ["train", "train=", "train=x"])
def test_a_share_is_a_number(share: str) -> None:
    result = CliRunner().invoke(app, ["snapshot", "create", "--split", share])
    assert (result.exit_code, "NAME=SHARE" in result.output) == (1, True)


@pytest.mark.parametrize("name", ["../x", "a/b", "", "a?b", "ö", "a b"])
def test_a_name_is_no_path(name: str) -> None:
    result = CliRunner().invoke(app, ["snapshot", "verify", name])
    assert (result.exit_code, "is no name" in result.output) == (1, True)
