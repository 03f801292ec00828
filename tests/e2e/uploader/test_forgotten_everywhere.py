"""After `annotate forget` nothing that the platform keeps holds a text: no table, no index, no file."""

import io
import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from uuid import UUID

import httpx
import psycopg
import pyarrow as pa
import pytest
from psycopg.conninfo import make_conninfo
from pyarrow import parquet

from core.text_identity import text_id
from local_stack.components.postgres import ARGILLA_DATABASE
from local_stack.testing import RunningStack
from tests.e2e.uploader.conftest import DATASET, ArgillaSpace, StartUploader
from tests.e2e.uploader.stored import fetch, statuses
from tests.e2e.uploader.test_forgetting import QUICK
from tests.integration.cli.test_forget import forget
from tests.integration.ingestion_api.importing import ended, open_import
from tests.programs import running
from tests.waiting import wait_for

# The second half is plain letters, and no program folds or escapes them.
_MARK = 'Zoë"Xq7vKzQuandtJw9'
_PLAIN = "Xq7vKzQuandtJw9"
_TEXT = f"I met {_MARK} in Elm Street"
_NDJSON, _JSON, _CSV = "application/x-ndjson", "application/json", "text/csv"
_PARQUET = "application/vnd.apache.parquet"
_OTHER = {"text": "another", "label": "toxic"}


def _forms() -> list[bytes]:
    words = [_MARK, _PLAIN, _PLAIN.lower(), json.dumps(_MARK)[1:-1]]
    return [word.encode(encoding) for word in words for encoding in ("utf-8", "utf-16-le", "utf-16-be")]


_FORMS = _forms()
# As Postgres shows bytes.
_FORMS_IN_TEXT = [form.decode() for form in _FORMS if b"\0" not in form] + [form.hex() for form in _FORMS]


def _bodies() -> list[tuple[str, str, bytes]]:
    """Return imports that reject the text in each format: query, media type and body."""
    bad_label = {"text": _TEXT, "label": f"no label {_MARK}"}
    bad_metadata = {"text": _TEXT, "metadata": {_MARK: {"deep": _MARK}}}
    too_big = {"text": _TEXT, "metadata": {_MARK: []}, _MARK: "x" * 70_000}
    ndjson = "\n".join(map(json.dumps, (bad_label, bad_metadata, too_big, _TEXT, [_TEXT])))
    quoted = _TEXT.replace('"', '""')
    table = pa.table(
        {
            "text": pa.array([_TEXT.encode(), b"fine"], pa.binary()),
            "label": [f"no label {_MARK}", "?"],
            "score": [math.nan, 0.5],
        }
    )
    file = io.BytesIO()
    parquet.write_table(table, file)
    return [
        ("", _NDJSON, ndjson.encode()),
        ("", _JSON, json.dumps([bad_label, {"text": _TEXT, "score": 7}], ensure_ascii=False).encode()),
        ("?metadata=all", _CSV, f'text,label,note\n"{quoted}",nope,"{quoted}"\n'.encode()),
        (
            "",
            _CSV,
            f'"{quoted}",toxic\nb,toxic\n'.encode(),  # no header: the import fails, and names the columns
        ),
        ("", _PARQUET, file.getvalue()),
    ]


def _has(content: str) -> bool:
    return any(form in content for form in _FORMS_IN_TEXT)


def _tables(url: str) -> list[str]:
    """Return the tables of which a column holds the mark; statistics, which sample columns, are one of them."""
    with psycopg.connect(url) as connection:
        names = [
            name for (name,) in connection.execute("select tablename from pg_tables where schemaname = 'public'")
        ]
        rows = {
            name: connection.execute(f'select "{name}"::text from "{name}"').fetchall()  # noqa: S608 - its own names
            for name in [*names, "pg_stats"]
        }
    return sorted(name for name, found in rows.items() if any(_has(row) for (row,) in found))


def _table_files(url: str) -> list[str]:
    """Return the files of a database's tables that hold the mark, after dead rows are gone, and its server's logs.

    The write-ahead log is not looked at: it holds the past until it is used again.
    """
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("set statement_timeout = 0")
        connection.execute("vacuum full")
        connection.execute("checkpoint")
        [(folder,)] = connection.execute(
            "select current_setting('data_directory') || '/base/' || oid from pg_database"
            " where datname = current_database()"
        )
    data = Path(folder).parents[2]
    assert (data / "logs" / "postgres.log").exists()
    return _files([Path(folder), data / "logs"])


def _files(folders: Sequence[Path]) -> list[str]:
    files = [file for folder in folders for file in folder.rglob("*") if file.is_file()]
    return sorted(
        file.name for file in files if any(form in content for content in _contents(file) for form in _FORMS)
    )


def _contents(file: Path) -> Iterator[bytes]:
    """Yield a file's bytes, and the content of compressed parts."""
    yield file.read_bytes()
    if file.suffix == ".parquet":
        yield json.dumps(parquet.read_table(file).to_pylist(), default=repr, ensure_ascii=False).encode()


def _index(stack: RunningStack, argilla: ArgillaSpace) -> list[str]:
    """Return the entries of OpenSearch's index that hold the mark."""
    index = f"{stack.opensearch_url}/rg.{argilla.dataset()['id']}"
    httpx.post(f"{index}/_refresh").raise_for_status()
    hits = httpx.get(f"{index}/_search", params={"size": 1000}).raise_for_status().json()["hits"]["hits"]
    return [hit["_id"] for hit in hits if _has(json.dumps(hit, ensure_ascii=False))]


class _Platform:
    """Clients of the running programs, and where these keep things."""

    def __init__(self, ingestion: httpx.Client, serving: httpx.Client, database_url: str, data: Path) -> None:
        self.ingestion = ingestion
        self.serving = serving
        self.database_url = database_url
        self.data = data
        self.env = {"DATABASE_URL": database_url, "SERVING_URL": str(serving.base_url).rstrip("/")}

    def post(self) -> UUID:
        """Hand in the text, and another."""
        fields = {"source": _MARK, "external_id": _MARK, "metadata": {"who": _MARK, _MARK: 1}}
        for body in (_OTHER, {"text": _TEXT, "label": "toxic"} | fields):
            self.ingestion.post("/texts", json=body).raise_for_status()
        return text_id(DATASET, _TEXT)

    def reject(self) -> None:
        """Hand it in again in rows and files that are refused."""
        for query, media_type, body in _bodies():
            path = self.ingestion.post(f"/imports{query}", content=body, headers={"Content-Type": media_type})
            result = ended(self.ingestion, path.headers["location"])
            assert result["accepted"] == 0
            assert result["rejected"] or result["problem"]

    def use(self) -> None:
        """Search for it, export it, read it, and make a snapshot with it."""
        wait_for(lambda: len(self.serving.get("/texts").json()["items"]) == 1)
        wait_for(lambda: bool(self.serving.get("/texts", params={"q": _PLAIN}).json()["items"]))
        for name in ("csv", "ndjson", "parquet", "arrow"):
            assert self.serving.get(f"/export.{name}").raise_for_status().content
        assert _has(self.serving.get("/export.ndjson").text)
        made = self.serving.post("/snapshots", json={"name": "before", "splits": {"train": 1}})
        assert made.status_code == 201, made.text

    def is_forgotten(self) -> bool:
        """Whether every step is done, as `annotate forget --list` finds."""
        assert forget("--list", **self.env).returncode == 0
        steps = "imports_at, argilla_at, replica_at, snapshots_at"
        return None not in fetch(self.database_url, f"select {steps} from forget_requests")[0]  # noqa: S608


@pytest.fixture
def platform(database_url: str, tmp_path: Path) -> Iterator[_Platform]:
    data = tmp_path / "data"
    env = {"DATABASE_URL": database_url, "DATA_DIR": str(data), "TMPDIR": str(data), "LOG_LEVEL": "DEBUG"}
    quick = {"REPLICA_FORGET_SECONDS": "1", "REPLICA_POLL_SECONDS": "0.2"}
    data.mkdir()
    with (
        running("ingestion_api", env, data / "ingestion.log") as ingestion,
        running("serving_api", env | quick, data / "serving.log") as serving,
        httpx.Client(base_url=ingestion.url, timeout=60) as to_ingestion,
        httpx.Client(base_url=serving.url, timeout=60) as to_serving,
    ):
        yield _Platform(to_ingestion, to_serving, database_url, data)


@pytest.mark.timeout(600)
def test_nothing_holds_a_forgotten_text(
    stack: RunningStack,
    start_uploader: StartUploader,
    argilla: ArgillaSpace,
    platform: _Platform,
    tmp_path: Path,
) -> None:
    argilla_url = make_conninfo(stack.admin_database_url, dbname=ARGILLA_DATABASE)
    folders = [platform.data, stack.logs_dir]
    with start_uploader(**QUICK, LOG_LEVEL="DEBUG"):
        id_ = platform.post()
        platform.reject()
        wait_for(lambda: statuses(platform.database_url) == {"uploaded": 2})
        argilla.add_annotator("ann").answer(argilla.record(id_)["id"], "toxic")
        platform.use()
        under_way = open_import(platform.ingestion, headers={"Content-Type": _NDJSON})

        # It is everywhere, and the search finds it.
        assert {"import_rejects", "imports", "texts"} <= set(_tables(platform.database_url))
        assert "records" in _tables(argilla_url)
        assert len(_index(stack, argilla)) == 1
        found = _files(folders)
        assert any(name.startswith("replica") for name in found)
        assert "train.parquet" in found

        done = forget("--external-id", _MARK, "--yes", "--rewrite-snapshots", **platform.env)
        assert done.returncode == 0, done.stderr
        # What an import that was under way rejects is looked through at its end.
        row = json.dumps({"text": _TEXT, "label": "nope"}).encode()
        headers = {"Content-Type": "application/partial-upload", "Upload-Offset": "0", "Upload-Complete": "?1"}
        platform.ingestion.patch(under_way, content=row, headers=headers).raise_for_status()
        assert ended(platform.ingestion, under_way)["rejected"] == 1
        wait_for(platform.is_forgotten)

        assert _tables(platform.database_url) == []
        assert _tables(argilla_url) == []
        assert _index(stack, argilla) == []
        assert platform.serving.get("/texts", params={"q": _PLAIN}).json()["items"] == []
        assert [item["text"] for item in platform.serving.get("/texts").json()["items"]] == []
        wait_for(lambda: _files(folders) == [], 20)
    assert _files([tmp_path]) == []
    assert _table_files(platform.database_url) == []
    assert _table_files(argilla_url) == []
