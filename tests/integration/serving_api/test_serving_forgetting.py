"""A forgotten text is a `delete` in the change feed, is not found, and disappears from the files on disk."""

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import pytest
import typer
from sqlalchemy import Engine
from starlette.testclient import TestClient

from cli import addresses
from cli import forget as forget_command
from core.datasets import load_datasets
from core.forgetting.service import Traces, forget_texts
from core.settings import AccessSettings, DatabaseSettings
from serving_api.main import create_app
from serving_api.settings import DataSettings, ReplicaSettings, ServingSettings
from tests.integration.serving_api.conftest import LOCAL
from tests.integration.serving_api.labelling import Labeller, assert_same, wait_until
from tests.programs import running

# Of letters that compression leaves apart: found in a file if it is anywhere in it.
_NAME = "Xq7vKzQuandtJw9"


@contextmanager
def serving(database: DatabaseSettings, folder: Path, forget_seconds: float) -> Iterator[TestClient]:
    app = create_app(
        ServingSettings(),
        ReplicaSettings(poll_seconds=0.05, forget_seconds=forget_seconds),
        DataSettings(data_dir=folder),
        database,
        AccessSettings(require_api_key=False),
        load_datasets(None),
    )
    with TestClient(app, LOCAL, raise_server_exceptions=False) as client:
        yield client


def forget(engine: Engine, *ids: UUID) -> None:
    with engine.begin() as connection:
        assert forget_texts(connection, ids, Traces(), "tester") == sorted(ids)


def files_with(folder: Path, word: str) -> list[str]:
    """Return the files below a folder that contain a word, unchanged or in lower case as in the index."""
    forms = (word.encode(), word.lower().encode())
    return sorted(
        str(file.relative_to(folder))
        for file in folder.rglob("*")
        if file.is_file() and any(form in file.read_bytes() for form in forms)
    )


def test_a_forgotten_text_leaves_no_trace(
    database: DatabaseSettings, labeller: Labeller, engine: Engine, tmp_path: Path
) -> None:
    id_ = labeller.add_label(f"I met {_NAME}", source=_NAME, external_id=_NAME, metadata_={"who": _NAME})
    labeller.add_label("another")
    unlabelled = labeller.add_text(f"{_NAME} once more")
    with serving(database, tmp_path, 3) as client:
        state = client.app.state  # type: ignore[attr-defined]
        labeller.wait_for(state.replica)
        wait_until(lambda: client.get("/texts", params={"q": _NAME}).json()["items"])
        wait_until(lambda: state.search.version)
        version = client.get("/changes?since=0").json()["next"]
        made = client.post("/snapshots", json={"name": "before", "splits": {"train": 1}})
        assert made.status_code == 201, made.text
        forget(engine, id_, unlabelled)
        labeller.wait_for(state.replica)
        assert client.get(f"/changes?since={version}").json()["items"] == [
            {"op": "delete", "id": str(id_), "dataset": "toxicity", "version": labeller.newest_stamp()}
        ]
        assert client.get(f"/texts/{id_}").status_code == 404
        assert client.get("/texts", params={"q": _NAME}).json()["items"] == []
        assert [item["text"] for item in client.get("/texts").json()["items"]] == ["another"]
        _check_snapshots(client, id_, made.json()["content_hash"])
        # Deleted rows stay in DuckDB's file, where no query reaches them.
        assert files_with(tmp_path / "serving", _NAME) == ["replica-1.duckdb"]
        early = client.get("/forgotten").json()
        assert early["traceless_below"] <= labeller.newest_stamp() <= early["version"]
        wait_until(lambda: client.get("/forgotten").json()["traceless_below"] > labeller.newest_stamp())
        wait_until(lambda: not files_with(tmp_path, _NAME))
        assert client.get("/texts", params={"q": "another"}).json()["items"]
        assert_same(engine, state.replica)
        # Once is enough.
        built = state.replica.state.built
        labeller.add_label("a third")
        labeller.wait_for(state.replica)
        time.sleep(0.5)
        assert state.replica.state.built == built


def _check_snapshots(client: TestClient, id_: UUID, digest: str) -> None:
    assert client.get("/snapshots/before").json()["forgotten"] == 1
    assert client.get("/snapshots").json()["items"][0]["forgotten"] == 1
    assert client.get("/forgotten").json()["snapshots"] == [{"name": "before", "ids": [str(id_)]}]
    after = client.post("/snapshots", json={"name": "after"}).json()
    assert client.get("/snapshots/after").json()["forgotten"] == after["forgotten"] == 0
    rewritten = client.post("/snapshots/before/rewrite", json={"without": [str(id_)]})
    assert rewritten.status_code == 200, rewritten.text
    assert rewritten.json()["content_hash"] != digest
    assert client.get("/snapshots/before").json()["forgotten"] == 0
    assert client.get("/forgotten").json()["snapshots"] == []


def test_a_replica_built_anew_knows_what_was_forgotten_in_older_snapshots(
    database: DatabaseSettings, labeller: Labeller, engine: Engine, tmp_path: Path
) -> None:
    id_ = labeller.add_label(f"I met {_NAME}")
    labeller.add_label("another")
    with serving(database, tmp_path, 60) as client:
        labeller.wait_for(client.app.state.replica)  # type: ignore[attr-defined]
        assert client.post("/snapshots", json={"name": "before"}).status_code == 201
    forget(engine, id_)
    for file in (tmp_path / "serving").glob("replica*"):
        file.unlink()
    with serving(database, tmp_path, 60) as client:
        state = client.app.state  # type: ignore[attr-defined]
        wait_until(lambda: state.replica.state)
        assert client.get("/snapshots/before").json()["forgotten"] == 1
        assert not state.replica.has_traces
        # The index that was there before is not only caught up with.
        wait_until(lambda: client.get("/forgotten").json()["traceless_below"] > labeller.newest_stamp())
        assert files_with(tmp_path / "serving", _NAME) == []


def _call(client: TestClient, verb: str, url: str, timeout: float, **options: Any) -> httpx.Response:
    answer: httpx.Response = getattr(client, verb)(url, **options)
    return answer


def test_the_rewriting_command_takes_them_out_of_all_snapshots(
    database: DatabaseSettings,
    labeller: Labeller,
    engine: Engine,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    id_ = labeller.add_label(f"I met {_NAME}")
    labeller.add_label("another")
    with serving(database, tmp_path, 60) as client:
        labeller.wait_for(client.app.state.replica)  # type: ignore[attr-defined]
        for name in ("one", "two"):
            assert client.post("/snapshots", json={"name": name, "seed": len(name)}).status_code == 201
        forget(engine, id_)
        monkeypatch.setattr(forget_command, "LOOK_SECONDS", 0.05)
        monkeypatch.setattr(addresses, "database", lambda: database)
        monkeypatch.setattr(addresses, "serving_url", lambda: "")
        for verb in ("get", "post"):
            monkeypatch.setattr(httpx, verb, partial(_call, client, verb))
        forget_command.rewrite_marked("one")
        assert client.get("/snapshots/one").json()["forgotten"] == 0
        assert client.get("/snapshots/two").json()["forgotten"] == 1
        forget_command.rewrite_marked()
        assert client.get("/snapshots/two").json()["forgotten"] == 0
        assert files_with(tmp_path / "snapshots", _NAME) == []


def test_a_snapshot_that_cannot_be_rewritten_does_not_keep_the_others_from_it(
    database: DatabaseSettings,
    labeller: Labeller,
    engine: Engine,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A snapshot is deleted between the listing and the rewriting."""
    id_ = labeller.add_label(f"I met {_NAME}")
    get = httpx.get
    env = {"DATABASE_URL": database.libpq_url, "DATA_DIR": str(tmp_path)}
    with running("serving_api", env, tmp_path / "log", "/readyz") as program:
        wait_until(lambda: get(f"{program.url}/texts").json()["items"])
        for name in ("one", "two", "three"):
            made = httpx.post(f"{program.url}/snapshots", json={"name": name, "seed": len(name)})
            assert made.status_code == 201, made.text
        forget(engine, id_)

        def look_and_delete(url: str, **options: Any) -> httpx.Response:
            answer = get(url, **options)
            if answer.json()["snapshots"]:
                shutil.rmtree(tmp_path / "snapshots" / "three")
            return answer

        monkeypatch.setattr(addresses, "database", lambda: database)
        monkeypatch.setattr(addresses, "serving_url", lambda: program.url)
        monkeypatch.setattr(httpx, "get", look_and_delete)
        with pytest.raises(typer.Exit):
            forget_command.rewrite_marked()
        assert "three" in capsys.readouterr().err
        for name in ("one", "two"):
            assert get(f"{program.url}/snapshots/{name}").json()["forgotten"] == 0
