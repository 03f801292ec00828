"""Snapshots over HTTP."""

import hashlib
import io
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import uuid4

import pytest
import structlog
from pyarrow import parquet
from pydantic import SecretStr
from starlette.testclient import TestClient

from core.datasets import load_datasets
from core.settings import AccessSettings, DatabaseSettings
from core.web.keys import ValidKey, hash_key
from load_testing.bench.replica_rows import make_replica
from serving_api.main import create_app
from serving_api.settings import DataSettings, ReplicaSettings, ServingSettings
from serving_api.snapshots.manifest import SplitFile
from serving_api.snapshots.parameters import parse_request
from serving_api.snapshots.service import Snapshots
from serving_api.snapshots.writer import SplitWriter
from tests.unit.serving_api.snapshot_world import Row, hold

Item = dict[str, Any]

_ROWS = [Row(number, "toxic" if number % 3 else "non_toxic", text=f"text {number}") for number in range(30)]


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """The service on a replica's file, without Postgres."""
    data = DataSettings(data_dir=tmp_path_factory.mktemp("data"))
    make_replica(data.replica_path, 1)
    app = create_app(
        ServingSettings(),
        ReplicaSettings(),
        data,
        DatabaseSettings(url=SecretStr("postgresql://nobody@127.0.0.1:1/none")),
        AccessSettings(require_api_key=False),
        load_datasets(None),
    )
    with TestClient(app, "http://127.0.0.1", raise_server_exceptions=False) as client:
        yield client


@pytest.fixture
def labelled(client: TestClient) -> TestClient:
    """The service with 30 labelled texts, and without snapshots."""
    replica_of(client, _ROWS, 2)
    storage = client.app.state.snapshots.storage  # type: ignore[attr-defined]
    for manifest in storage.list():
        storage.fs.rm(f"{storage.root}/{manifest.name}", recursive=True)
    return client


def replica_of(client: TestClient, rows: Sequence[Row], version: int) -> None:
    hold(client.app.state.replica, rows, version)  # type: ignore[attr-defined]


def make(client: TestClient, **body: Any) -> Item:
    answer = client.post("/snapshots", json=body)
    assert answer.status_code == 201, answer.text
    item: Item = answer.json()
    return item


def read(client: TestClient, name: str, split: str) -> list[Item]:
    answer = client.get(f"/snapshots/{name}/{split}.parquet")
    rows: list[Item] = parquet.read_table(io.BytesIO(answer.raise_for_status().content)).to_pylist()
    return rows


def test_what_is_read_is_what_the_manifest_says(labelled: TestClient) -> None:
    answer = labelled.post("/snapshots", json={"name": "one"})
    assert answer.headers["location"] == "/snapshots/one"
    manifest = labelled.get(answer.headers["location"]).json()
    assert manifest == answer.json()
    for name, split in manifest["splits"].items():
        file = labelled.get(f"/snapshots/one/{name}.parquet")
        assert file.headers["etag"] == f'"{hashlib.sha256(file.content).hexdigest()}"' == f'"{split["sha256"]}"'
        assert len(file.content) == split["bytes"] == int(file.headers["content-length"])
    rows = [row for name in manifest["splits"] for row in read(labelled, "one", name)]
    served = labelled.get("/texts?limit=1000").json()["items"]
    assert {(row["id"], row["label"]) for row in rows} == {(item["id"], item["label"]) for item in served}
    assert labelled.get("/snapshots/one/snapshot.json").json() == manifest
    assert "one" in labelled.get("/snapshots/one/README.md").text


def test_filters_are_those_of_the_lists(labelled: TestClient) -> None:
    manifest = make(labelled, label=["toxic"], q="1", splits={"whole": 1})
    served = labelled.get("/texts?label=toxic&q=1").json()["items"]
    assert {row["id"] for row in read(labelled, manifest["name"], "whole")} == {item["id"] for item in served}
    assert manifest["filters"] == {"label": ["toxic"], "q": "1"}


def test_lists_are_walked_and_told_apart(labelled: TestClient) -> None:
    names = [make(labelled, name=f"s{number}", seed=number)["name"] for number in range(5)]
    page = labelled.get("/snapshots?limit=2")
    assert [item["name"] for item in page.json()["items"]] == names[:2:-1]
    seen, url = [], "/snapshots?limit=2"
    while url:
        answer = labelled.get(url)
        seen += [item["name"] for item in answer.json()["items"]]
        url = answer.links.get("next", {}).get("url", "")
    assert seen == names[::-1]
    held = labelled.get("/snapshots", headers={"If-None-Match": labelled.get("/snapshots").headers["etag"]})
    assert held.status_code == 304
    assert labelled.get("/snapshots?cursor=" + "A" * 43).json()["code"] == "invalid_cursor"


def test_a_diff_is_walked(labelled: TestClient) -> None:
    make(labelled, name="before")
    changed, gone, new = [Row(1), Row(2), Row(4)], Row(5), Row(31)
    others = [
        Row(row.number, "non_toxic" if row.number in {1, 2, 4} else row.label) for row in _ROWS if row.number != 5
    ]
    replica_of(labelled, [*others, new], 3)
    make(labelled, name="after")
    found, url = [], "/snapshots/before/diff/after?limit=2"
    while url:
        answer = labelled.get(url)
        page = answer.json()
        assert {kind: page[kind] for kind in ("added", "removed", "relabelled", "moved")} == {
            "added": 1,
            "removed": 1,
            "relabelled": 3,
            "moved": 0,
        }
        found += page["items"]
        url = answer.links.get("next", {}).get("url", "")
    kinds = {item["id"]: item["change"] for item in found}
    relabelled = {str(row.id): "relabelled" for row in changed}
    assert kinds == {str(new.id): "added", str(gone.id): "removed"} | relabelled


_BAD = [
    (b"{", 400, []),
    (b"\xff", 400, []),
    (b"[" * 100_000, 413, []),
    (b"[" * 10_000, 400, []),
    (b"[]", 422, [""]),
    (b'{"bla": 1, "seed": -1, "stratify": 3}', 422, ["/seed", "/stratify", "/bla"]),
    (b'{"seed": 9223372036854775808}', 422, ["/seed"]),
    (b'{"splits": {}}', 422, ["/splits"]),
    (b'{"splits": {"train": 0.9}}', 422, ["/splits"]),
    (b'{"splits": {"train": NaN}}', 422, ["/splits/train"]),
    (b'{"splits": {"train": 1e400}}', 422, ["/splits/train"]),
    (b'{"splits": {"a/b": 0.5, "c": 0.5, "d": 0}}', 422, ["/splits/a~1b", "/splits/d"]),
    (b'{"splits": {"../x": 1}}', 422, ["/splits/..~1x"]),
    (b'{"name": "../x"}', 422, ["/name"]),
    (b'{"name": "live"}', 422, ["/name"]),
    (b'{"name": "models"}', 422, ["/name"]),
    (b'{"name": "\\ud800"}', 400, []),
    (b'{"q": "\\u0000"}', 422, ["/q"]),
    (b'{"dataset": "x"}', 422, ["/dataset"]),
    (b'{"label": ["x", "toxic"]}', 422, ["/label"]),
    (b'{"match": "words"}', 409, ["/match"]),
    (b'{"labelled_after": 5}', 422, ["/labelled_after"]),
    (b'{"source": "nowhere"}', 409, []),
]


def test_bad_requests_are_told_what_is_wrong(labelled: TestClient) -> None:
    for body, status, pointers in _BAD:
        answer = labelled.post("/snapshots", content=body, headers={"Content-Type": "application/json"})
        assert answer.status_code == status, (body, answer.text)
        assert [error.get("pointer", "") for error in answer.json().get("errors", [])] == pointers, body
    assert labelled.post("/snapshots", content=b"name=x").status_code == 415
    assert labelled.post("/snapshots?name=x", json={}).status_code == 422


def test_what_is_not_there_is_not_found(labelled: TestClient) -> None:
    make(labelled, name="one")
    for path in (
        *("/snapshots/two", "/snapshots/two/train.parquet", "/snapshots/one/other.parquet", "/snapshots/one/x"),
        *("/snapshots/one/diff/two", "/snapshots/%2e%2e", "/snapshots/..%2fone/train.parquet"),
        *("/snapshots/%2fetc%2fpasswd", "/snapshots/one%00/train.parquet", "/snapshots/%ff/train.parquet"),
        *("/snapshots/one/..%2f..%2fstack.json", "/snapshots/one/%2e%2e%2ftrain.parquet", "/snapshots/.lock"),
        *("/snapshots/one/data%2ftrain.parquet", f"/snapshots/{'x' * 5000}", "/snapshots/one/data/train.parquet"),
    ):
        answer = labelled.get(path)
        assert answer.status_code == 404, path
        assert answer.headers["content-type"] == "application/problem+json"


def test_texts_are_taken_out_by_admins_only(labelled: TestClient) -> None:
    make(labelled, name="one", splits={"whole": 1})
    etag = labelled.get("/snapshots/one/whole.parquet").headers["etag"]
    wrong = labelled.post("/snapshots/one/rewrite", json={"without": ["x"]}).json()
    assert wrong["errors"][0]["pointer"] == "/without/0"
    ids = [str(_ROWS[7].id), str(uuid4())]
    answer = labelled.post("/snapshots/one/rewrite", json={"without": ids})
    assert answer.json()["splits"]["whole"]["rows"] == 29
    assert ids[0] not in {row["id"] for row in read(labelled, "one", "whole")}
    changed = labelled.get("/snapshots/one/whole.parquet", headers={"Range": "bytes=0-3", "If-Range": etag})
    assert changed.status_code == 200  # not a part of another file
    assert labelled.post("/snapshots/none/rewrite", json={"without": ids}).status_code == 404
    ring = labelled.app.state.key_ring  # type: ignore[attr-defined]
    ring.required = True
    try:
        ring.replace([ValidKey(hash_key("reader"), "1", "reader", frozenset({"read"}))])
        reader = {"Authorization": "Bearer reader"}
        assert labelled.get("/snapshots/one", headers=reader).status_code == 200
        assert labelled.post("/snapshots", json={"name": "two"}, headers=reader).status_code == 403
        ring.replace([ValidKey(hash_key("reader"), "1", "reader", frozenset({"read", "snapshot"}))])
        assert labelled.post("/snapshots", json={"name": "two"}, headers=reader).status_code == 201
        refused = labelled.post("/snapshots/one/rewrite", json={"without": ids}, headers=reader)
        assert refused.status_code == 403
        ring.replace([ValidKey(hash_key("owner"), "2", "owner", frozenset({"admin"}))])
        with structlog.testing.capture_logs() as lines:
            for name, status in (("one", 200), ("none", 404)):
                path, owner = f"/snapshots/{name}/rewrite", {"Authorization": "Bearer owner"}
                assert labelled.post(path, json={"without": ids}, headers=owner).status_code == status
        noted = [line for line in lines if line["event"] == "audit"]
        assert [(line["actor"], line["object_ids"], line["outcome"]) for line in noted] == [
            ("2 owner", ["one"], "done"),
            ("2 owner", ["none"], "failed"),
        ]
        assert labelled.get("/snapshots/one/whole.parquet").status_code == 401
    finally:
        ring.required = False


def test_who_leaves_finds_the_snapshot_finished(labelled: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    snapshots: Snapshots = labelled.app.state.snapshots  # type: ignore[attr-defined]
    begun, go_on = threading.Event(), threading.Event()
    finish = SplitWriter.finish

    def wait(writer: SplitWriter) -> SplitFile:
        begun.set()
        assert go_on.wait(20)
        return finish(writer)

    monkeypatch.setattr(SplitWriter, "finish", wait)
    request, query = parse_request(b'{"name": "one"}', load_datasets(None))
    made = ThreadPoolExecutor(1).submit(snapshots.create, request, query)  # as another process would
    assert begun.wait(20)
    # Others are served meanwhile, but for a second snapshot.
    assert labelled.get("/texts").status_code == 200
    assert labelled.get("/snapshots").json()["items"] == []
    busy = labelled.post("/snapshots", json={"name": "two"})
    assert (busy.status_code, busy.json()["code"], busy.headers["retry-after"]) == (503, "too_busy", "5")
    go_on.set()
    assert labelled.get(f"/snapshots/{made.result(20).manifest.name}").status_code == 200


def test_a_snapshot_is_deleted_and_the_log_says_who_did_it(labelled: TestClient) -> None:
    make(labelled, name="one")
    with structlog.testing.capture_logs() as lines:
        answer = labelled.delete("/snapshots/one")
        assert (answer.status_code, answer.content) == (204, b"")
        assert (labelled.delete("/snapshots/one").json()["code"], labelled.get("/snapshots").json()["items"]) == (
            "snapshot_not_found",
            [],
        )
    audited = [line for line in lines if line["event"] == "audit"]
    assert [(line["action"], line["object_ids"], line["outcome"]) for line in audited] == [
        ("snapshot.deleted", ["one"], "done"),
        ("snapshot.deleted", ["one"], "failed"),
    ]
    for path in ("", "/train.parquet", "/README.md", "/snapshot.json"):
        assert labelled.get(f"/snapshots/one{path}").status_code == 404
    assert labelled.delete("/snapshots/one?x=1").status_code == 422


def test_writers_wait_for_each_other(labelled: TestClient) -> None:
    with ThreadPoolExecutor(4) as threads:
        names = [f"s{number}" for number in range(4)]
        answers = threads.map(lambda name: labelled.post("/snapshots", json={"name": name, "seed": 5}), names)
    assert {answer.status_code for answer in answers} == {201}


def test_the_card_is_shown_and_not_downloaded(labelled: TestClient) -> None:
    make(labelled, name="one")
    markdown = labelled.get("/snapshots/one/README.md", headers={"Accept": "text/markdown"})
    assert markdown.headers["content-type"] == "text/markdown; charset=utf-8"
    browser = labelled.get(
        "/snapshots/one/README.md", headers={"Accept": "text/html,application/xml;q=0.9,*/*;q=0.8"}
    )
    assert browser.headers["content-type"] == "text/plain; charset=utf-8"
    for answer in (markdown, browser):
        assert answer.headers["content-disposition"] == 'inline; filename="README.md"'
        assert answer.headers["vary"] == "Accept"
        assert answer.text.startswith("---")
    data = labelled.get("/snapshots/one/snapshot.json")
    assert data.headers["content-disposition"] == 'attachment; filename="snapshot.json"'


def test_files_are_sent_only_if_they_match(labelled: TestClient) -> None:
    make(labelled, name="one")
    for file in ("train.parquet", "README.md", "croissant.json"):
        etag = labelled.get(f"/snapshots/one/{file}").headers["etag"]
        assert labelled.get(f"/snapshots/one/{file}", headers={"If-Match": etag}).status_code == 200
        refused = labelled.get(f"/snapshots/one/{file}", headers={"If-Match": '"other"'})
        assert (refused.status_code, refused.json()["code"]) == (412, "precondition_failed")
