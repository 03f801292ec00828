"""The dataset viewer over live labels and over a snapshot, on one running server."""

import io
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path
from threading import Event
from typing import Any

import datasets
import jsonschema
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyarrow import parquet
from pydantic import SecretStr
from sqlalchemy import create_engine
from starlette.testclient import TestClient

from core.datasets import Dataset
from core.settings import AccessSettings, DatabaseSettings
from serving_api.main import create_app
from serving_api.settings import DataSettings, ReplicaSettings, ServingSettings
from serving_api.snapshots.storage import Storage
from tests.conftest import fresh_database
from tests.integration.serving_api.conftest import LOCAL, Serve
from tests.integration.serving_api.labelling import Labeller, wait_until

# Next to the project, or next to the folder of its worktrees.
PUBLISHED = [parent / "shared" / "data" / "dataset-viewer-openapi.json" for parent in Path(__file__).parents[4:6]]

_DATASETS = {
    "toxicity": Dataset(labels=("toxic", "non_toxic"), guidelines="Is it toxic?"),
    "mood": Dataset(labels=("yes", "no"), guidelines="Is it fine?"),
}
TEXTS = 130
SNAPSHOT = "first"
LIVE_SPLIT = {"dataset": "toxicity", "config": "live", "split": "train"}
SNAPSHOT_SPLIT = {"dataset": "toxicity", "config": SNAPSHOT, "split": "train"}
OF_A_SPLIT = ["/rows", "/first-rows", "/statistics", "/filter"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("viewer")


@pytest.fixture(scope="module")
def labeller(admin_database_url: str, template_database: str) -> Iterator[Labeller]:
    with fresh_database(admin_database_url, template_database) as url:
        engine = create_engine(DatabaseSettings(url=SecretStr(url)).sqlalchemy_url)
        labeller = Labeller(engine)
        _label(labeller)
        yield labeller
        engine.dispose()


def _label(labeller: Labeller) -> None:
    said: dict[Any, Any] = {}
    for n in range(TEXTS):
        words = f"you are number {n}" if n % 3 else f"it's 100% {n} _"
        score = None if n % 4 == 0 else n / TEXTS
        id_ = labeller.add_text(words, source=["forum", None][n % 2], score=score, metadata_={"n": n})
        said[id_] = {"ada": "toxic", "grace": "toxic" if n % 5 else "non_toxic"}
    labeller.annotate(said)
    moods = {labeller.add_text(f"mood {n}", "mood"): {"ada": "yes"} for n in range(3)}
    labeller.annotate(moods, "mood")


@pytest.fixture(scope="module")
def viewer(labeller: Labeller, folder: Path) -> Iterator[TestClient]:
    url = labeller.engine.url.render_as_string(hide_password=False).replace("+psycopg", "")
    app = create_app(
        ServingSettings(),
        ReplicaSettings(poll_seconds=0.05),
        DataSettings(data_dir=folder),
        DatabaseSettings(url=SecretStr(url)),
        AccessSettings(require_api_key=False),
        _DATASETS,
    )
    with TestClient(app, LOCAL, raise_server_exceptions=False) as client:
        labeller.wait_for(app.state.replica)
        body = {"name": SNAPSHOT, "splits": {"train": 0.8, "test": 0.2}}
        assert client.post("/snapshots", json=body).status_code == 201
        wait_until(lambda: (app.state.search.version or 0) >= app.state.replica.state.version)
        yield client


def _get(viewer: TestClient, path: str, **parameters: Any) -> dict[str, Any]:
    answer = viewer.get(path, params=parameters)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def _walk(viewer: TestClient, path: str, length: int, **parameters: Any) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    while True:
        page = _get(viewer, path, offset=len(rows), length=length, **parameters)
        rows += page["rows"]
        if not page["rows"]:
            assert page["num_rows_total"] == len(rows)
            return rows


def _exported(viewer: TestClient) -> list[dict[str, Any]]:
    items = [json.loads(line) for line in viewer.get("/export.ndjson?order=oldest").text.splitlines()]
    texts = {"votes", "metadata", "enrichment"}
    return [{k: json.dumps(v) if k in texts else v for k, v in item.items()} for item in items]


def _comparable(row: dict[str, Any]) -> dict[str, Any]:
    return row | {name: json.dumps(json.loads(row[name])) for name in ("votes", "metadata", "enrichment")}


def _split_file(viewer: TestClient, split: str = "train") -> list[dict[str, Any]]:
    body = viewer.get(f"/snapshots/{SNAPSHOT}/{split}.parquet").content
    rows: list[dict[str, Any]] = parquet.read_table(io.BytesIO(body)).to_pylist()
    times = ("received_at", "labelled_at")
    return [row | {name: f"{row[name]:%Y-%m-%dT%H:%M:%S.%f}Z" for name in times} for row in rows]


def test_live_comes_first_then_snapshots(viewer: TestClient) -> None:
    test_split = SNAPSHOT_SPLIT | {"split": "test"}
    every = {"splits": [LIVE_SPLIT, SNAPSHOT_SPLIT, test_split], "pending": [], "failed": []}
    assert _get(viewer, "/splits", dataset="toxicity") == every
    assert _get(viewer, "/splits") == every
    assert _get(viewer, "/splits", config=SNAPSHOT)["splits"] == [SNAPSHOT_SPLIT, test_split]
    assert _get(viewer, "/splits", config="live")["splits"] == [LIVE_SPLIT]
    assert _get(viewer, "/splits", dataset="mood")["splits"] == [LIVE_SPLIT | {"dataset": "mood"}]


def test_all_can_be_done_with_what_there_is(viewer: TestClient) -> None:
    for parameters in (
        {},
        LIVE_SPLIT,
        SNAPSHOT_SPLIT,
        {"dataset": "mood"},
        {"config": SNAPSHOT},
        {"split": "test"},
    ):
        found = _get(viewer, "/is-valid", **parameters)
        assert found == dict.fromkeys(("preview", "viewer", "search", "filter", "statistics"), True)


@pytest.mark.parametrize("length", [100, 37])
def test_live_rows_are_those_of_an_export(viewer: TestClient, length: int) -> None:
    rows = _walk(viewer, "/rows", length, **LIVE_SPLIT)
    assert [row["row_idx"] for row in rows] == list(range(TEXTS))
    assert [_comparable(row["row"]) for row in rows] == _exported(viewer)
    assert all(row["truncated_cells"] == [] for row in rows)


@pytest.mark.parametrize("split", ["train", "test"])
def test_rows_of_a_snapshot_are_those_of_its_file(viewer: TestClient, split: str) -> None:
    rows = _walk(viewer, "/rows", 23, **SNAPSHOT_SPLIT | {"split": split})
    assert [row["row_idx"] for row in rows] == list(range(len(rows)))
    assert [row["row"] for row in rows] == _split_file(viewer, split)


def test_live_answers_tell_their_version(viewer: TestClient) -> None:
    version = viewer.get("/texts").headers["X-Replica-Version"]
    for path in OF_A_SPLIT:
        assert viewer.get(path, params=LIVE_SPLIT).headers["X-Replica-Version"] == version
        assert "X-Replica-Version" not in viewer.get(path, params=SNAPSHOT_SPLIT).headers


@pytest.mark.parametrize("split", [LIVE_SPLIT, SNAPSHOT_SPLIT])
def test_first_rows_are_the_first_hundred(viewer: TestClient, split: dict[str, str]) -> None:
    found = _get(viewer, "/first-rows", **split)
    page = _get(viewer, "/rows", **split)
    assert (found["rows"], found["features"]) == (page["rows"], page["features"])
    assert {name: found[name] for name in split} == split
    assert found["truncated"] == (page["num_rows_total"] > 100)


@pytest.mark.parametrize("query", ["you are", "7", "100%", "YOU 8 number"])
def test_a_live_search_is_that_of_texts(viewer: TestClient, query: str) -> None:
    items = _get(viewer, "/texts", q=query, match="words", order="relevance", limit=1000)["items"]
    rows = _walk(viewer, "/search", 40, query=query, **LIVE_SPLIT)
    assert [row["row"]["id"] for row in rows] == [item["id"] for item in items] != []
    whole = [row["row"]["id"] for row in _walk(viewer, "/rows", 100, **LIVE_SPLIT)]
    assert [whole[row["row_idx"]] for row in rows] == [row["row"]["id"] for row in rows]


def test_a_search_in_a_snapshot_finds_what_the_live_one_does(viewer: TestClient) -> None:
    held = {row["id"] for row in _split_file(viewer)}
    live = [row["row"]["id"] for row in _walk(viewer, "/search", 100, query="you are", **LIVE_SPLIT)]
    rows = _walk(viewer, "/search", 30, query="you are", **SNAPSHOT_SPLIT)
    assert {row["row"]["id"] for row in rows} == held.intersection(live) != set()


def test_a_search_that_cannot_show_all_says_so(viewer: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not _get(viewer, "/search", query="number", **LIVE_SPLIT)["partial"]
    monkeypatch.setattr("serving_api.search.repository.RANKED", 20)
    found = _get(viewer, "/search", query="number you", **LIVE_SPLIT)
    assert (found["partial"], found["num_rows_total"]) == (True, 20)


CONDITIONS: dict[str, Any] = {
    "\"label\"='toxic' AND score>0.5": lambda r: r["label"] == "toxic" and (r["score"] or 0) > 0.5,
    "label is null or (source = 'forum' and not score < 0.9)": lambda r: (
        r["label"] is None or (r["source"] == "forum" and r["score"] is not None and r["score"] >= 0.9)
    ),
    "text like 'it''s 100\u0025 %_'": lambda r: r["text"].startswith("it's 100"),
    "labelled_at > '2020-01-01T00:00:00+02:00' and annotations in (2, 3)": lambda _: True,
    "text = 'nothing'": lambda _: False,
}


@pytest.mark.parametrize("where", CONDITIONS)
def test_a_filter_leaves_what_fits(viewer: TestClient, where: str) -> None:
    for split in (LIVE_SPLIT, SNAPSHOT_SPLIT):
        rows = _walk(viewer, "/rows", 100, **split)
        assert _walk(viewer, "/filter", 31, where=where, **split) == [
            r for r in rows if CONDITIONS[where](r["row"])
        ]


def test_an_order_sorts_all_that_fits(viewer: TestClient) -> None:
    for split in (LIVE_SPLIT, SNAPSHOT_SPLIT):
        rows = [row for row in _walk(viewer, "/rows", 100, **split) if row["row"]["label"]]
        expected = sorted(rows, key=lambda row: -(row["row"]["score"] or -1))
        assert _walk(viewer, "/filter", 40, where="label is not null", orderby='"score" DESC', **split) == expected


def test_parquet_files_can_be_fetched_as_they_are(viewer: TestClient) -> None:
    found = _get(viewer, "/parquet", dataset="toxicity")
    assert [file["split"] for file in found["parquet_files"]] == ["train", "test"]
    for file in found["parquet_files"]:
        assert file["url"] == f"{LOCAL}/snapshots/{SNAPSHOT}/{file['split']}.parquet"
        assert len(viewer.get(file["url"]).content) == file["size"]
    assert _get(viewer, "/parquet", config=SNAPSHOT)["parquet_files"] == found["parquet_files"]
    assert _get(viewer, "/parquet", config="live")["parquet_files"] == []
    other = viewer.get("/parquet", headers={"Host": "localhost:8443"}).json()
    assert other["parquet_files"][0]["url"].startswith("http://localhost:8443/snapshots/")
    hostile = viewer.get("/parquet", headers={"Host": "localhost/<script>"}).json()
    assert hostile["parquet_files"][0]["url"] == f"/snapshots/{SNAPSHOT}/train.parquet"


def test_sizes_add_up(viewer: TestClient) -> None:
    found = _get(viewer, "/size")["size"]
    assert [config["num_rows"] for config in found["configs"]] == [TEXTS, TEXTS]
    assert found["dataset"]["num_rows"] == 2 * TEXTS
    for key in ("num_rows", "num_bytes_parquet_files", "num_bytes_memory"):
        assert found["dataset"][key] == sum(split[key] for split in found["splits"])
        assert _get(viewer, "/size", config=SNAPSHOT)["size"]["config"][key] == found["configs"][1][key]
    assert found["configs"][1]["num_bytes_parquet_files"] > 0 == found["configs"][0]["num_bytes_parquet_files"]
    exported = parquet.read_table(io.BytesIO(viewer.get("/export.parquet").content))
    # Arrow adds a validity bitmap, and rounds up.
    assert found["configs"][0]["num_bytes_memory"] == pytest.approx(exported.nbytes, rel=0.1)


def test_the_datasets_library_reads_the_metadata_and_the_files(viewer: TestClient, tmp_path: Path) -> None:
    info = _get(viewer, "/info", config=SNAPSHOT)["dataset_info"]
    assert _get(viewer, "/info")["dataset_info"][SNAPSHOT] == info
    read = datasets.DatasetInfo.from_dict(json.loads(json.dumps(info)))
    assert read.splits["train"].num_examples + read.splits["test"].num_examples == TEXTS
    (tmp_path / "train.parquet").write_bytes(viewer.get(f"/snapshots/{SNAPSHOT}/train.parquet").content)
    loaded = datasets.Dataset.from_parquet(str(tmp_path / "train.parquet"), cache_dir=str(tmp_path))
    assert loaded.features == read.features
    assert read.features == datasets.Features.from_dict(
        {feature["name"]: feature["type"] for feature in _get(viewer, "/rows", **LIVE_SPLIT)["features"]}
    )


def test_statistics_count_all_rows(viewer: TestClient) -> None:
    for split in (LIVE_SPLIT, SNAPSHOT_SPLIT):
        rows = [row["row"] for row in _walk(viewer, "/rows", 100, **split)]
        found = _get(viewer, "/statistics", **split)
        assert found == _get(viewer, "/statistics", **split)
        assert found["num_examples"] == len(rows)
        by_name = {one["column_name"]: one["column_statistics"] for one in found["statistics"]}
        assert sum(by_name["label"]["frequencies"].values()) == sum(row["label"] is not None for row in rows)
        assert by_name["score"]["max"] == pytest.approx(max(row["score"] or 0 for row in rows), abs=1e-5)


MISSING = {
    "dataset": ({"dataset": "x"}, "dataset_not_found"),
    "config": ({"config": "x"}, "config_not_found"),
    "config that is no name": ({"config": "../x"}, "config_not_found"),
    "config of another dataset": ({"dataset": "mood", "config": SNAPSHOT}, "config_not_found"),
    "split": ({"split": "x"}, "split_not_found"),
    "split of a snapshot": ({"config": SNAPSHOT, "split": "x"}, "split_not_found"),
    "split that is a path": ({"config": SNAPSHOT, "split": "../snapshot.json"}, "split_not_found"),
}


@pytest.mark.parametrize("case", MISSING)
@pytest.mark.parametrize("path", [*OF_A_SPLIT, "/search", "/is-valid"])
def test_what_is_not_there_is_told_to_clients_of_both_kinds(viewer: TestClient, path: str, case: str) -> None:
    changed, code = MISSING[case]
    query = {"query": "a"} if path == "/search" else {}
    answer = viewer.get(path, params=LIVE_SPLIT | query | changed)
    assert (answer.status_code, answer.headers["content-type"]) == (404, "application/problem+json")
    assert answer.headers["X-Error-Code"] == "ResponseNotFound"
    assert answer.json()["code"] == code
    assert answer.json()["error"] == answer.json()["detail"]


@pytest.mark.parametrize("path", ["/splits", "/parquet", "/croissant", "/size", "/info"])
def test_an_unknown_config_is_not_found(viewer: TestClient, path: str) -> None:
    for parameters in ({"config": "x"}, {"dataset": "x"}):
        answer = viewer.get(path, params=parameters)
        assert (answer.status_code, answer.headers["X-Error-Code"]) == (404, "ResponseNotFound")


WRONG: dict[str, tuple[str, dict[str, Any], str]] = {
    "config missing": ("/rows", {"config": None}, "config"),
    "split missing": ("/first-rows", {"split": None}, "split"),
    "split empty": ("/statistics", {"split": ""}, "split"),
    "offset negative": ("/rows", {"offset": -1}, "offset"),
    "offset of text": ("/filter", {"offset": "x"}, "offset"),
    "offset huge": ("/rows", {"offset": 2**53}, "offset"),
    "length beyond": ("/rows", {"length": 101}, "length"),
    "length negative": ("/search", {"length": -1, "query": "a"}, "length"),
    "unknown": ("/rows", {"limit": 1}, "limit"),
    "query missing": ("/search", {}, "query"),
    "query of blanks": ("/search", {"query": "  "}, "query"),
    "query with NUL": ("/search", {"query": "\0"}, "query"),
    "query of many words": ("/search", {"query": "a " * 33}, "query"),
    "where": ("/filter", {"where": "lable = 'toxic'"}, "where"),
    "where with NUL": ("/filter", {"where": "label = '\0'"}, "where"),
    "where beyond": ("/filter", {"where": "label = '" + "a" * 4000 + "'"}, "where"),
    "where of a second statement": ("/filter", {"where": "1=1; drop table items"}, "where"),
    "where with a function": ("/filter", {"where": "read_text('/etc/passwd') = ''"}, "where"),
    "orderby": ("/filter", {"orderby": "random()"}, "orderby"),
}


@pytest.mark.parametrize("case", WRONG)
@pytest.mark.parametrize("split", [LIVE_SPLIT, SNAPSHOT_SPLIT])
def test_wrong_parameters_are_named(viewer: TestClient, case: str, split: dict[str, str]) -> None:
    path, changed, parameter = WRONG[case]
    given_ = {name: value for name, value in (split | changed).items() if value is not None}
    answer = viewer.get(path, params=given_)
    assert (answer.status_code, answer.headers["content-type"]) == (422, "application/problem+json")
    assert [error["parameter"] for error in answer.json()["errors"]] == [parameter]
    assert answer.json()["error"].startswith(f"Parameter '{parameter}': ")
    is_missing = "missing" in case
    assert answer.headers["X-Error-Code"] == ("MissingRequiredParameter" if is_missing else "InvalidParameter")


def test_nothing_a_client_sends_is_a_500(viewer: TestClient) -> None:
    paths = st.sampled_from(
        [*OF_A_SPLIT, "/search", "/splits", "/parquet", "/croissant", "/size", "/info", "/is-valid"]
    )
    names = st.sampled_from(["dataset", "config", "split", "offset", "length", "query", "where", "orderby"])
    pieces = st.sampled_from(
        ["label", "=", "'a'", "(", ")", "not", "in", "1e400", "--", "score", "and", "desc", ","]
    )
    values = st.text() | st.integers().map(str) | st.lists(pieces, max_size=6).map(" ".join)

    @settings(suppress_health_check=list(HealthCheck))
    @given(paths, st.sampled_from([{}, LIVE_SPLIT, SNAPSHOT_SPLIT]), st.dictionaries(names, values, max_size=3))
    def check(path: str, split: dict[str, str], drawn: dict[str, str]) -> None:
        parameters = split | {n: v.encode("utf-8", "replace").decode() for n, v in drawn.items()}
        answer = viewer.get(path, params=parameters)
        assert answer.status_code in {200, 404, 422}
        assert (answer.status_code == 200) == ("error" not in answer.json())

    check()


def test_unchanged_answers_are_not_sent_again(viewer: TestClient) -> None:
    asked = [(path, split) for path in OF_A_SPLIT for split in (LIVE_SPLIT, SNAPSHOT_SPLIT)]
    for path, parameters in [
        *asked,
        ("/splits", {}),
        ("/parquet", {}),
        ("/croissant", {}),
        ("/size", {}),
        ("/info", {}),
    ]:
        etag = viewer.get(path, params=parameters).headers["ETag"]
        again = viewer.get(path, params=parameters, headers={"If-None-Match": etag})
        assert (again.status_code, again.content, again.headers["ETag"]) == (304, b"", etag)
        other = viewer.get(path, params=parameters | {"dataset": "mood"}, headers={"If-None-Match": etag})
        assert other.status_code != 304


def test_answers_are_as_the_published_document_says(viewer: TestClient) -> None:
    published = [path for path in PUBLISHED if path.exists()]
    if not published:
        pytest.skip("the published OpenAPI document is not beside the project")
    document = _made_exact(json.loads(published[0].read_text()))
    asked = [(path, split) for path in [*OF_A_SPLIT, "/search"] for split in (LIVE_SPLIT, SNAPSHOT_SPLIT)]
    of_configs = ("/parquet", "/size", "/info", "/splits")
    configs = [(path, {"config": config}) for path in of_configs for config in ("live", SNAPSHOT)]
    whole: list[tuple[str, dict[str, str]]] = [(path, {}) for path in (*of_configs, "/is-valid")]
    for path, parameters in [*asked, *configs, *whole]:
        body = _get(viewer, path, **parameters | ({"query": "you"} if path == "/search" else {}))
        if "rows" in body:
            body["rows"] = body["rows"][:3]  # each cell is held against every kind of cell
        _validate(document, path, "200", body)
        broken = dict(list(body.items())[1:])
        with pytest.raises(jsonschema.ValidationError):
            _validate(document, path, "200", broken)
    for path, wrong in (("/rows", {"length": "101"}), ("/filter", {"where": "x"})):
        _validate(document, path, "422", viewer.get(path, params=SNAPSHOT_SPLIT | wrong).json())
    _validate(document, "/rows", "404", viewer.get("/rows", params=LIVE_SPLIT | {"config": "x"}).json())


def _validate(document: dict[str, Any], path: str, status: str, body: dict[str, Any]) -> None:
    answer = document["paths"][path]["get"]["responses"][status]
    schema = answer["content"]["application/json"]["schema"]
    jsonschema.Draft202012Validator(schema | {"components": document["components"]}).validate(body)


def _made_exact(node: Any) -> Any:
    """Relax constraints of the JSON Schema that the published examples violate.

    An integer is a number too, and a string a cell of several kinds, so that `oneOf` never holds; `nullable` is of
    another version of OpenAPI; and dtypes are listed as people write about them.
    """
    if isinstance(node, list):
        return [_made_exact(part) for part in node]
    if not isinstance(node, dict):
        return node
    node = {("anyOf" if key == "oneOf" else key): _made_exact(value) for key, value in node.items()}
    if node.get("nullable") and "anyOf" in node:
        node["anyOf"].append({"type": "null"})
    if "float64 (alias double)" in node.get("enum", []):
        node |= {"enum": ["bool", "string", "int32", "float64", "timestamp[us, tz=UTC]"]}
    return node


def test_a_key_is_asked_for(serve: Serve) -> None:
    with serve(require_api_key=True) as client:
        wait_until(lambda: client.get("/readyz").status_code == 200)
        answer = client.get("/splits")
    assert (answer.status_code, answer.headers["X-Error-Code"]) == (401, "ExternalUnauthenticatedError")
    assert answer.json()["error"] == answer.json()["detail"]


def test_new_labels_come_at_the_end(viewer: TestClient, labeller: Labeller) -> None:
    before = _walk(viewer, "/rows", 100, **LIVE_SPLIT)
    id_ = labeller.add_label("a new one")
    labeller.wait_for(viewer.app.state.replica)  # type: ignore[attr-defined]
    after = _walk(viewer, "/rows", 100, **LIVE_SPLIT)
    assert after[:-1] == before
    assert after[-1]["row"]["id"] == str(id_)
    labeller.annotate({id_: {}})
    labeller.wait_for(viewer.app.state.replica)  # type: ignore[attr-defined]
    assert _walk(viewer, "/rows", 100, **LIVE_SPLIT) == before


def test_live_answers_do_not_wait_for_the_storage(viewer: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    answers_again = Event()
    read = Storage.read

    def hang(self: Storage, name: str, path: str) -> bytes:
        answers_again.wait(20)
        return read(self, name, path)

    monkeypatch.setattr(Storage, "read", hang)
    with ThreadPoolExecutor(6) as clients:
        waiting = [clients.submit(viewer.get, "/rows", params=SNAPSHOT_SPLIT) for _ in range(6)]
        for path in OF_A_SPLIT:
            assert viewer.get(path, params=LIVE_SPLIT | {"dataset": "mood"}).status_code == 200
        assert viewer.get("/splits", params={"config": "live"}).status_code == 200
        assert not any(one.done() for one in waiting)
        answers_again.set()
        assert {one.result().status_code for one in waiting} == {200}


def test_a_damaged_file_is_told(viewer: TestClient, folder: Path) -> None:
    body = {"name": "broken", "splits": {"train": 0.5, "test": 0.5}}
    assert viewer.post("/snapshots", json=body).status_code == 201
    broken = {"config": "broken", "split": "test"}
    file = folder / "snapshots" / "broken" / "data" / "test.parquet"
    whole = file.read_bytes()
    damaged = {"end": b"PAR1" + bytes(len(whole) - 8) + b"PAR1", "no Parquet": b"x", "rows": _overwritten(whole)}
    for (kind, content), path in product(damaged.items(), OF_A_SPLIT):
        file.write_bytes(content)
        answer = viewer.get(path, params=broken)
        assert (answer.status_code, answer.json()["code"]) == (503, "snapshot_damaged"), (kind, path)
    file.unlink()
    gone = viewer.get("/rows", params=broken)
    assert (gone.status_code, gone.headers["X-Error-Code"]) == (404, "ResponseNotFound")


def _overwritten(file: bytes) -> bytes:
    """Return the file with other rows in the same footer."""
    footer = int.from_bytes(file[-8:-4], "little") + 8
    return file[:4] + b"\xff" * (len(file) - footer - 4) + file[-footer:]
