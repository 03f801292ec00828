"""Exports as files that readers take in parts: length, ranges, validators, versions, bounds, and forgetting."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.testclient import TestClient

from serving_api.exports import service
from serving_api.exports.repository import read_batches
from serving_api.replica.replica import Replica
from serving_api.settings import ServingSettings
from tests.integration.serving_api.conftest import Serve
from tests.integration.serving_api.exporting import READ
from tests.integration.serving_api.labelling import Labeller, wait_until
from tests.integration.serving_api.served import served
from tests.integration.serving_api.test_serving_forgetting import files_with, forget


@pytest.fixture
def url(client: TestClient, labeller: Labeller, replica: Replica) -> Iterator[str]:
    """The address of a service with 300 labelled texts."""
    ids = [labeller.add_text(f"text {number}") for number in range(300)]
    labeller.annotate({id_: {"ada": "toxic"} for id_ in ids})
    labeller.wait_for(replica)
    with served(client.app, lifespan="off") as address:
        yield address


@pytest.mark.parametrize("name", READ)
def test_parts_make_the_whole(url: str, name: str) -> None:
    whole = httpx.get(f"{url}/export.{name}")
    size = int(whole.headers["content-length"])
    assert (whole.headers["accept-ranges"], size) == ("bytes", len(whole.content))
    assert httpx.head(f"{url}/export.{name}").headers["content-length"] == str(size)
    parts = [
        httpx.get(f"{url}/export.{name}", headers={"Range": f"bytes={start}-{start + 999}"})
        for start in range(0, size, 1000)
    ]
    assert {part.status_code for part in parts} == {206}
    assert b"".join(part.content for part in parts) == whole.content
    beyond = httpx.get(f"{url}/export.{name}", headers={"Range": f"bytes={size}-"})
    assert (beyond.status_code, beyond.headers["content-range"]) == (416, f"bytes */{size}")


def test_parts_are_of_the_version_that_was_begun(
    url: str, labeller: Labeller, replica: Replica, client: TestClient
) -> None:
    first = httpx.get(f"{url}/export.ndjson")
    begin, etag = first.content[:100], first.headers["etag"]
    labeller.add_label("a new one")
    labeller.wait_for(replica)
    for headers in ({}, {"If-Range": etag}, {"If-Match": etag}):
        part = httpx.get(f"{url}/export.ndjson", headers={"Range": "bytes=0-99"} | headers)
        assert (part.status_code, part.content, part.headers["etag"]) == (206, begin, etag), headers
        assert part.headers["x-replica-version"] == first.headers["x-replica-version"]
    newer = httpx.head(f"{url}/export.ndjson")  # begins anew
    assert newer.headers["etag"] != etag
    assert int(newer.headers["content-length"]) > len(first.content)
    end = httpx.get(f"{url}/export.ndjson", headers={"Range": "bytes=-5"})
    assert end.headers["etag"] == newer.headers["etag"]
    stale = httpx.get(f"{url}/export.ndjson", headers={"If-Match": '"other"'})
    assert (stale.status_code, stale.json()["code"]) == (412, "precondition_failed")
    changed = httpx.get(f"{url}/export.ndjson", headers={"Range": "bytes=0-9", "If-Range": '"other"'})
    assert changed.status_code == 200
    held = httpx.get(f"{url}/export.ndjson", headers={"If-None-Match": newer.headers["etag"]})
    assert (held.status_code, held.headers["etag"]) == (304, newer.headers["etag"])


def test_a_query_runs_once_for_each_version(
    url: str, labeller: Labeller, replica: Replica, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs: list[Any] = []

    def counted(*arguments: Any) -> Iterator[Any]:
        runs.append(arguments)
        yield from read_batches(*arguments)

    monkeypatch.setattr(service, "read_batches", counted)
    for _ in range(3):
        httpx.head(f"{url}/export.csv")
        httpx.get(f"{url}/export.csv")
        httpx.get(f"{url}/export.csv", headers={"Range": "bytes=5-9"})
    assert len(runs) == 1
    httpx.get(f"{url}/export.csv?source=x")
    assert len(runs) == 2
    labeller.add_label("another")
    labeller.wait_for(replica)
    assert httpx.get(f"{url}/export.csv").status_code == 200
    assert len(runs) == 3


def test_the_disk_is_bounded_and_the_folder_is_private(serve: Serve, labeller: Labeller, tmp_path: Path) -> None:
    for number in range(20):
        labeller.add_label(f"{number} " + "x" * 50_000)
    with serve(serving=ServingSettings(export_bytes=3_000_000)) as client:
        labeller.wait_for(client.app.state.replica)  # type: ignore[attr-defined]
        folder = tmp_path / "serving" / "exports"
        for number in range(70):  # each is of one megabyte
            assert client.get(f"/export.ndjson?min_annotations=1&min_agreement={number / 100}").status_code == 200
        kept = [file for file in folder.iterdir() if not file.is_symlink()]
        assert len(kept) < 40
        assert folder.stat().st_mode & 0o77 == 0
        assert all(file.stat().st_mode & 0o77 == 0 for file in kept)


def test_an_export_over_the_limit_is_refused(
    serve: Serve, labeller: Labeller, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serving_api.exports.service.CHECK_BYTES", 10_000)
    for number in range(20):
        labeller.add_label(f"{number} " + "x" * 50_000)
    with serve(serving=ServingSettings(export_bytes=500_000)) as client:
        labeller.wait_for(client.app.state.replica)  # type: ignore[attr-defined]
        refused = client.get("/export.ndjson")
        assert (refused.status_code, refused.json()["code"]) == (503, "export_too_large")
        assert "SERVING_EXPORT_BYTES (500,000)" in refused.json()["detail"]
        assert [*(tmp_path / "serving" / "exports").iterdir()] == []
        assert client.get("/export.parquet").status_code == 200


_NAME = "Xq7vKzQuandtJw9"


def test_a_forgotten_text_leaves_the_files_of_exports(
    client: TestClient, labeller: Labeller, replica: Replica, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    id_ = labeller.add_label(f"I met {_NAME}")
    labeller.add_label("another")
    labeller.wait_for(replica)
    exports = tmp_path / "serving" / "exports"
    first = client.get("/export.ndjson")
    assert _NAME in first.text
    assert files_with(exports, _NAME)

    def forgetting(*arguments: Any) -> Iterator[Any]:
        monkeypatch.undo()
        yield from read_batches(*arguments)
        forget(labeller.engine, id_)
        labeller.wait_for(replica)
        # The file that is being written is not counted as traceless.
        assert client.get("/forgotten").json()["traceless_below"] <= replica.forgotten

    monkeypatch.setattr(service, "read_batches", forgetting)
    late = client.get("/export.csv")
    assert late.status_code == 200
    assert _NAME not in late.text  # written again: the first one was begun before the text was forgotten
    assert files_with(exports, _NAME) == []
    again = client.get("/export.ndjson", headers={"Range": "bytes=0-", "If-Range": first.headers["etag"]})
    assert (again.status_code, _NAME in again.text) == (200, False)


def test_what_was_left_of_an_earlier_process_is_removed(serve: Serve, labeller: Labeller, tmp_path: Path) -> None:
    id_ = labeller.add_label(f"I met {_NAME}")
    labeller.add_label("another")
    exports = tmp_path / "serving" / "exports"
    with serve() as client:
        labeller.wait_for(client.app.state.replica)  # type: ignore[attr-defined]
        client.get("/export.ndjson")
    assert files_with(exports, _NAME)
    (exports / "unfinished-serving-killed").write_text(_NAME)
    forget(labeller.engine, id_)
    with serve() as client:
        state = client.app.state  # type: ignore[attr-defined]
        labeller.wait_for(state.replica)
        wait_until(lambda: files_with(exports, _NAME) == [])


def test_values_of_metadata_have_one_type_in_all_formats(
    client: TestClient, labeller: Labeller, replica: Replica
) -> None:
    sent = {"text": "3", "number": 3, "decimal": 3.0, "flag": True, "long": 12345678901234567890123}
    labeller.annotate({labeller.add_text("one", metadata_=sent): {"ada": "toxic"}})
    labeller.wait_for(replica)
    found = {name: read(client.get(f"/export.{name}").content)[0]["metadata"] for name, read in READ.items()}
    found["list"] = client.get("/texts").json()["items"][0]["metadata"]
    split = {"config": "live", "split": "train"}
    found["viewer"] = json.loads(client.get("/rows", params=split).json()["rows"][0]["row"]["metadata"])
    made = client.post("/snapshots", json={"splits": {"whole": 1}}).json()
    snapshot = client.get(f"/snapshots/{made['name']}/whole.parquet").content
    found["snapshot"] = READ["parquet"](snapshot)[0]["metadata"]
    for name, metadata in found.items():
        assert metadata == sent, name
        assert {key: type(value) for key, value in metadata.items()} == {
            key: type(value) for key, value in found["ndjson"].items()
        }, name
