"""The usual tools read a snapshot over HTTP and from its folder, and exports over HTTP."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from pyarrow import parquet
from pydantic import SecretStr
from sqlalchemy import create_engine
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from core.datasets import Dataset
from core.settings import AccessSettings, DatabaseSettings
from serving_api.columns import COLUMNS
from serving_api.main import create_app
from serving_api.settings import DataSettings, ReplicaSettings, ServingSettings
from tests.conftest import fresh_database
from tests.integration.serving_api.export_readers import READERS as EXPORT_READERS
from tests.integration.serving_api.labelling import Labeller, wait_until
from tests.integration.serving_api.served import served

ROOT = Path(__file__).parents[3]
TEXTS = 400
SOURCE = "forum|`x`"
AGAIN = "again"
GUIDELINES = "Decide.\n\n```\n---\nlicense: mit\n---\n\n| a | b |\n"
DATASETS = {"toxicity": Dataset(labels=("toxic", "non_toxic"), guidelines=GUIDELINES, license="cc-by-4.0")}


class Recorder:
    """Passes requests on, and notes what each reader was sent."""

    def __init__(self, app: ASGIApp) -> None:
        self.sent: dict[str, list[tuple[int, int]]] = defaultdict(list)  # status and bytes of each piece
        self._app = app
        self._reader = ""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or let the application do so."""
        if scope["type"] == "http" and scope["path"].startswith("/reader/"):
            self._reader = scope["path"].rpartition("/")[2]
            await send({"type": "http.response.start", "status": 204, "headers": []})
            await send({"type": "http.response.body"})
            return
        status = 0

        async def note(message: Message) -> None:
            nonlocal status
            status = message.get("status", status)
            if scope["method"] == "GET" and message["type"] == "http.response.body":
                self.sent[self._reader].append((status, len(message.get("body", b""))))
            await send(message)

        await self._app(scope, receive, note if scope["type"] == "http" else send)


@dataclass(frozen=True)
class Read:
    """What the readers found, and what they were sent."""

    found: dict[str, Any]
    sent: dict[str, list[tuple[int, int]]]
    ids: dict[str, list[str]]  # by split
    labels: list[list[Any]]  # of the training split
    toxic: list[str]  # ids of the training split with this label
    file_bytes: int  # of the training split
    manifest: dict[str, Any]
    agreement: dict[str, Any]  # as GET /stats/agreement has it
    documents: dict[str, str]
    documents_again: dict[str, str]  # of the same request, made again under another name
    said: str  # on standard error

    def bytes_for(self, reader: str) -> int:
        """Return how many bytes a reader was sent."""
        return sum(size for _, size in self.sent[reader])


def text_of(number: int) -> str:
    """Return a text that does not compress."""
    return " ".join(hashlib.sha256(f"{number} {part}".encode()).hexdigest() for part in range(100))


@pytest.fixture(scope="module")
def read(
    admin_database_url: str, template_database: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Read]:
    folder = tmp_path_factory.mktemp("readers")
    with fresh_database(admin_database_url, template_database) as url:
        engine = create_engine(DatabaseSettings(url=SecretStr(url)).sqlalchemy_url)
        labeller = Labeller(engine)
        words = {number: labeller.add_text(text_of(number), source=SOURCE) for number in range(TEXTS)}
        said = {
            id_: {"ada": "toxic" if number % 3 else "non_toxic", "grace": "toxic"} for number, id_ in words.items()
        }
        labeller.annotate(said)
        app = create_app(
            ServingSettings(),
            ReplicaSettings(poll_seconds=0.05),
            DataSettings(data_dir=folder),
            DatabaseSettings(url=SecretStr(url)),
            AccessSettings(require_api_key=False),
            DATASETS,
        )
        recorder = Recorder(app)
        with served(recorder) as address:
            wait_until(lambda: app.state.replica.state and app.state.replica.rows == TEXTS)
            yield run_readers(address, recorder, folder)
        engine.dispose()


def run_readers(address: str, recorder: Recorder, folder: Path) -> Read:
    wanted = {"splits": {"train": 0.8, "test": 0.2}, "stratify": True, "min_annotations": 2, "source": SOURCE}
    manifest, again = (post(address, wanted | named) for named in ({}, {"name": AGAIN}))
    copy = folder / "copy"
    shutil.copytree(folder / "snapshots" / manifest["name"], copy)
    # No server listens at that endpoint: a program that phones home fails.
    away = {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HUB_DISABLE_TELEMETRY": "1", "HF_UPDATE_DOWNLOAD_COUNTS": "0"}
    quiet = {
        "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
        "HF_HOME": str(folder / "hub"),
        "TQDM_DISABLE": "1",
        "HOME": str(folder),
        "NO_PROXY": "127.0.0.1",
    }
    program = [sys.executable, "-m", "tests.integration.serving_api.snapshot_readers"]
    result = subprocess.run(
        [*program, address, manifest["name"], str(copy)],
        cwd=ROOT,
        env=os.environ | away | quiet,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    rows = {
        name: parquet.read_table(copy / split["path"]).to_pylist() for name, split in manifest["splits"].items()
    }
    counted = Counter(row["label"] for row in rows["train"])
    return Read(
        found=json.loads(result.stdout),
        sent=recorder.sent,
        ids={name: sorted(row["id"] for row in of_split) for name, of_split in rows.items()},
        labels=sorted([[label, count] for label, count in counted.items()], key=str),
        toxic=sorted(row["id"] for row in rows["train"] if row["label"] == "toxic"),
        file_bytes=manifest["splits"]["train"]["bytes"],
        manifest=manifest,
        agreement=httpx.get(f"{address}/stats/agreement").json(),
        documents=documents_in(copy),
        documents_again=documents_in(folder / "snapshots" / again["name"]),
        said=result.stderr,
    )


def post(address: str, wanted: dict[str, Any]) -> dict[str, Any]:
    manifest: dict[str, Any] = (
        httpx.post(f"{address}/snapshots", json=wanted, timeout=30).raise_for_status().json()
    )
    return manifest


def documents_in(folder: Path) -> dict[str, str]:
    return {file.name: file.read_text() for file in folder.iterdir() if file.suffix in {".md", ".json"}}


def test_pandas_reads_it(read: Read) -> None:
    assert read.found["pandas"] == {"ids": read.ids["train"], "zone": "UTC", "columns": ["label"]}


def test_polars_reads_it(read: Read) -> None:
    assert read.found["polars"] == read.ids["train"]


@pytest.mark.parametrize("reader", ["polars_scan", "duckdb_httpfs"])
def test_who_wants_one_column_is_sent_little_more(read: Read, reader: str) -> None:
    assert sorted(read.found[reader], key=str) == read.labels
    assert {status for status, _ in read.sent[reader]} == {206}
    assert 0 < read.bytes_for(reader) < read.file_bytes / 3


def test_pyarrow_reads_it_through_fsspec(read: Read) -> None:
    assert read.found["pyarrow"] == read.toxic
    assert read.found["pyarrow"] != read.ids["train"]


def test_datasets_loads_it(read: Read) -> None:
    assert read.found["datasets"] == read.ids


def test_datasets_streams_it(read: Read) -> None:
    assert read.found["datasets_streaming"] == read.ids["train"]
    assert 206 in {status for status, _ in read.sent["datasets_streaming"]}


def test_datasets_loads_its_folder_as_it_is(read: Read) -> None:
    assert read.found["datasets_folder"]["ids"] == read.ids
    types = {name: column.arrow_type for name, column in COLUMNS.items()}
    assert read.found["datasets_folder"]["features"] == types


def test_mlcroissant_reads_what_the_viewer_says(read: Read) -> None:
    found = read.found["croissant_served"]
    assert found["split-train"]["ids"] == read.ids["train"]
    assert set(found["live"]["ids"]) >= {id_ for ids in read.ids.values() for id_ in ids}
    for one in found.values():
        assert (one["conforms"], one["issues"]) == ("http://mlcommons.org/croissant/1.1", [])


def test_mlcroissant_reads_it(read: Read) -> None:
    found = read.found["croissant"]
    assert found["ids"] == read.ids
    assert found["told"] == {"train": ["train"], "test": ["test"]}
    assert found["splits"] == ["train", "test"]
    assert (found["errors"], found["warnings"]) == ([], [])


def test_the_hub_reads_its_card(read: Read) -> None:
    card = read.found["card"]
    assert (card["license"], card["size_categories"]) == ("cc-by-4.0", ["n<1K"])
    counted = {one["name"]: one["num_examples"] for one in card["dataset_info"]["splits"]}
    assert counted == {name: len(ids) for name, ids in read.ids.items()}


def test_readers_take_an_export_as_a_file(read: Read) -> None:
    assert read.found["exports"] == {reader.__name__: TEXTS for reader in EXPORT_READERS}


def test_no_reader_complains(read: Read) -> None:
    assert read.said == ""


def test_its_documents_say_what_is_so(read: Read) -> None:
    facts = json.loads(read.documents["facts.json"])
    for name, estimate in facts["agreement"].items():
        assert estimate == read.agreement[name], name
    assert facts["answers"] == {"total": 800, "fewest": 2, "most": 2, "annotators": 2, "adjudicators": 0}
    assert facts["statuses"] == {"labelled": 266, "disputed": 134}
    assert facts["sources"] == {SOURCE: 400}
    toxic = len(read.toxic)
    assert f"| `toxic` | {toxic} | {266 - toxic} | 266 |" in read.documents["README.md"]
    for name, document in read.documents.items():
        assert not re.search(r"\b(ada|grace)\b", document), name


def test_the_same_again_differs_in_its_name_alone(read: Read) -> None:
    assert read.documents_again["facts.json"] == read.documents["facts.json"]
    name = read.manifest["name"]
    for document in ("README.md", "croissant.json"):
        assert read.documents_again[document].replace(AGAIN, name) == read.documents[document]
