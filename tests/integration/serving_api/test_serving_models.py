"""Scores, models, predictions and suspects, with a small real model on a real Postgres."""

import csv
import io
import json
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Engine, text
from starlette.testclient import TestClient

from core.datasets import ModelInLoop, load_datasets
from core.settings import DatabaseSettings
from serving_api.replica.replica import Replica
from tests.integration.security.conftest import add_key
from tests.integration.serving_api.conftest import Serve, World
from tests.integration.serving_api.labelling import Labeller, wait_until
from tests.integration.serving_api.modelling import BAD, GOOD, predict, store_model, train, wait_for_model


@pytest.fixture
def snapshots(tmp_path: Path) -> Path:
    """The folder of the application's snapshots, and of its models."""
    return tmp_path / "snapshots"


@pytest.fixture
def version(engine: Engine, snapshots: Path, client: TestClient) -> str:
    """The active model, loaded."""
    stored = store_model(engine, snapshots, train())
    wait_for_model(client, stored)
    return stored


def score(client: TestClient, *texts: str, **more: Any) -> Any:
    return client.post("/score", json={"texts": [*texts]} | more).json()


def test_texts_are_scored_in_order(client: TestClient, version: str) -> None:
    answer = score(client, *BAD, *GOOD)
    assert answer["model_version"] == version
    assert [one["label"] for one in answer["scores"]] == ["toxic"] * len(BAD) + ["non_toxic"] * len(GOOD)
    expected = train().probabilities([*BAD, *GOOD])
    for one, (toxic, non_toxic) in zip(answer["scores"], expected, strict=True):
        assert one["probabilities"] == pytest.approx({"toxic": toxic, "non_toxic": non_toxic}, abs=1e-6)


def test_a_text_is_scored_as_it_would_be_stored(client: TestClient, version: str) -> None:
    plain, blank, decomposed = score(client, "caf\u00e9 idiot", "  caf\u00e9 idiot\n", "cafe\u0301 idiot")[
        "scores"
    ]
    assert plain == blank == decomposed


def test_without_a_model_scores_are_refused(client: TestClient, replica: Replica) -> None:
    wait_until(lambda: replica.state is not None)
    answer = client.post("/score", json={"texts": ["a"]})
    assert (answer.status_code, answer.json()["code"]) == (503, "no_model")
    assert int(answer.headers["retry-after"]) > 0
    assert client.get("/models").json() == {"items": []}
    assert client.get("/suspects").json()["items"] == []


@pytest.mark.parametrize(
    ("body", "status", "where"),
    [
        ({"texts": []}, 422, "/texts"),
        ({"texts": ["a"] * 1001}, 422, "/texts"),
        ({"texts": [1]}, 422, "/texts/0"),
        ({"texts": ["a"], "dataset": "nothing"}, 422, "/dataset"),
        ({"texts": ["a"], "model": "x"}, 422, "/model"),
        ({}, 422, "/texts"),
        ({"texts": ["a", "b\0"]}, 422, "/texts/1"),
        ({"texts": ["é" * 40_000]}, 413, None),
        ({"texts": ["a" * 60_000] * 100}, 413, None),
    ],
)
def test_bad_requests_name_what_is_wrong(shared: World, body: Any, status: int, where: str | None) -> None:
    answer = shared.client.post("/score", json=body)
    assert answer.status_code == status
    if where:
        assert [one["pointer"] for one in answer.json()["errors"]] == [where]


@pytest.mark.parametrize("body", [b"", b"{", b'{"texts": ["\xff"]}', b'{"texts": ["\\ud800"]}', b"[" * 10_000])
def test_a_body_that_is_no_json_is_refused(shared: World, body: bytes) -> None:
    answer = shared.client.post("/score", content=body, headers={"Content-Type": "application/json"})
    assert (answer.status_code, answer.json()["code"]) == (400, "malformed_json")


def test_another_model_takes_over(client: TestClient, engine: Engine, snapshots: Path, version: str) -> None:
    etag = client.get("/models").headers["etag"]
    other = store_model(engine, snapshots, train(more="good morning"))
    assert other != version
    wait_for_model(client, other)
    listed = client.get("/models", headers={"If-None-Match": etag})
    assert listed.status_code == 200, "the list changes while the version of the replica stays"
    assert [(one["version"], one["is_active"]) for one in listed.json()["items"]] == [
        (other, True),
        (version, False),
    ]
    assert client.get("/models", headers={"If-None-Match": listed.headers["etag"]}).status_code == 304


def test_a_damaged_file_is_not_loaded(client: TestClient, engine: Engine, snapshots: Path, version: str) -> None:
    other = train(more="good morning")
    damaged = store_model(engine, snapshots, other, active=False)
    file = snapshots / "models" / "toxicity" / damaged / "model.skops"
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    activate(engine, damaged)
    wait_until(lambda: client.get(f"/models/{damaged}").json().get("is_active"))
    metrics = 'serving_model_loads_total{result="failed"}'
    wait_until(lambda: f"{metrics} 0.0" not in client.get("/metrics").text)
    assert score(client, "a")["model_version"] == version


def activate(engine: Engine, version: str) -> None:
    with engine.begin() as connection:
        connection.execute(text("update models set is_active = false"))
        connection.execute(
            text("update models set is_active = true, activated_at = now() where version = :v"), {"v": version}
        )


def test_a_model_shows_its_manifest_and_its_card(client: TestClient, version: str) -> None:
    answer = client.get(f"/models/{version}").json()
    assert (answer["version"], answer["dataset"], answer["is_active"]) == (version, "toxicity", True)
    assert answer["metrics"]["model"]["roc_auc"] == {"value": 0.9, "low": 0.8, "high": 0.95}
    card = client.get(f"/models/{version}", headers={"Accept": "text/markdown"})
    assert card.headers["content-type"] == "text/markdown; charset=utf-8"
    assert card.text.startswith(f"# Model {version} of the dataset toxicity\n")
    assert "0.900 (0.800–0.950)" in card.text
    missing = client.get("/models/000000000000")
    assert (missing.status_code, missing.json()["code"]) == (404, "model_not_found")


def test_a_model_that_is_turned_off_leaves_no_trace(serve: Serve, engine: Engine, snapshots: Path) -> None:
    version = store_model(engine, snapshots, train())
    off = load_datasets(None)["toxicity"].model_copy(update={"model": ModelInLoop()})
    with serve(datasets={"toxicity": off}) as client:
        wait_until(lambda: client.get("/readyz").status_code == 200)
        assert client.get("/models").json() == {"items": []}
        assert client.get(f"/models/{version}").status_code == 404
        answer = client.post("/score", json={"texts": ["a"]})
        assert (answer.status_code, answer.json()["code"]) == (503, "model_off")


def test_everything_works_while_postgres_is_away(
    serve: Serve, engine: Engine, snapshots: Path, database: DatabaseSettings
) -> None:
    with serve() as client:
        version = store_model(engine, snapshots, train())
        wait_for_model(client, version)
    away = DatabaseSettings(url="postgresql://app:app@127.0.0.1:1/app")
    with serve(database=away) as client:
        wait_for_model(client, version)
        assert [one["version"] for one in client.get("/models").json()["items"]] == [version]


@pytest.fixture
def predicted(engine: Engine, labeller: Labeller, version: str, client: TestClient, replica: Replica) -> list[str]:
    """Six texts that are labelled toxic: the model doubts the first three, the worst first."""
    ids = [labeller.add_label(f"text {number}", source="forum" if number % 2 else "mail") for number in range(6)]
    doubted = {id_: ("non_toxic", 0.9 - number / 10, 0.1 + number / 20) for number, id_ in enumerate(ids[:3])}
    predict(engine, version, doubted | {ids[3]: ("toxic", 0.95, 0.95)})
    labeller.wait_for(replica)
    return [str(id_) for id_ in ids]


def test_items_show_their_predictions(client: TestClient, predicted: list[str], version: str) -> None:
    items = {item["id"]: item for item in client.get("/texts").json()["items"]}
    shown = ("predicted_label", "predicted_probability", "model_version")
    assert [items[predicted[0]][name] for name in shown] == ["non_toxic", 0.9, version]
    assert [items[predicted[5]][name] for name in shown] == [None, None, None]
    lines = client.get("/export.ndjson").text.splitlines()
    assert {one["id"]: one["predicted_label"] for one in map(json.loads, lines)} == {
        id_: item["predicted_label"] for id_, item in items.items()
    }
    rows = csv.DictReader(io.StringIO(client.get("/export.csv").text))
    assert {row["id"]: row["predicted_probability"] for row in rows}[predicted[3]] == "0.95"
    found = client.get("/texts", params={"predicted_label": "toxic"}).json()["items"]
    assert [item["id"] for item in found] == [predicted[3]]
    wrong = client.get("/texts", params={"predicted_label": "x"})
    assert wrong.json()["errors"][0]["parameter"] == "predicted_label"


def test_changes_bring_new_predictions(
    client: TestClient, engine: Engine, predicted: list[str], version: str, labeller: Labeller, replica: Replica
) -> None:
    since = client.get("/changes?limit=1000").json()["next"]
    predict(engine, version, {UUID(predicted[5]): ("toxic", 0.7, 0.7)})
    labeller.wait_for(replica)
    (change,) = client.get("/changes", params={"since": since}).json()["items"]
    assert (change["id"], change["predicted_probability"]) == (predicted[5], 0.7)


def test_a_rebuilt_replica_has_the_same_predictions(
    serve: Serve, engine: Engine, snapshots: Path, labeller: Labeller, tmp_path: Path
) -> None:
    with serve() as client:
        version = store_model(engine, snapshots, train())
        ids = [labeller.add_label(f"text {number}") for number in range(4)]
        predict(engine, version, {ids[0]: ("non_toxic", 0.9, 0.1), ids[1]: ("toxic", 0.9, 0.9)})
        labeller.wait_for(client.app.state.replica)  # type: ignore[attr-defined]
        merged, suspects = client.get("/texts").json(), client.get("/suspects").json()
    for file in (tmp_path / "serving").rglob("*.duckdb*"):
        file.unlink()
    with serve() as client:
        wait_until(lambda: client.get("/texts").status_code == 200)
        assert client.get("/texts").json() == merged
        assert client.get("/suspects").json() == suspects
        assert len(suspects["items"]) == 1


def test_suspects_come_worst_first(client: TestClient, predicted: list[str]) -> None:
    page = client.get("/suspects").json()
    assert [item["id"] for item in page["items"]] == predicted[:3]
    assert [item["quality"] for item in page["items"]] == pytest.approx([0.1, 0.15, 0.2])
    assert page["items"][0]["reason"] == (
        "1 of 1 annotators say toxic; the model, which learnt without this text, gives non_toxic 90 %."
    )
    assert page["next_cursor"] is None


def test_suspects_are_filtered_and_paged(client: TestClient, predicted: list[str]) -> None:
    def ask(**parameters: Any) -> Any:
        return client.get("/suspects", params=parameters).json()

    assert [item["id"] for item in ask(source="mail")["items"]] == [predicted[0], predicted[2]]
    assert [item["id"] for item in ask(quality_below=0.12)["items"]] == [predicted[0]]
    walked, parameters = [], {"limit": 1}
    while True:
        page = ask(**parameters)
        walked += [item["id"] for item in page["items"]]
        if page["next_cursor"] is None:
            break
        parameters["cursor"] = page["next_cursor"]
    assert walked == predicted[:3]
    answer = client.get("/suspects", params={"limit": 1})
    assert answer.headers["link"].endswith('rel="next"')
    wrong = client.get("/suspects", params=parameters | {"quality_below": 0.4})
    assert (wrong.status_code, wrong.json()["code"]) == (409, "invalid_cursor")


def test_a_corrected_label_is_no_suspect_any_more(
    client: TestClient, predicted: list[str], labeller: Labeller, replica: Replica
) -> None:
    labeller.annotate({UUID(predicted[0]): {"ada": "non_toxic"}})
    labeller.wait_for(replica)
    assert [item["id"] for item in client.get("/suspects").json()["items"]] == predicted[1:3]
    # Its quality was measured for the other label: it doesn't count for this one.
    with replica.reading() as cursor:
        found = cursor.execute("select quality from items where id = ?", [UUID(predicted[0])]).fetchall()
    assert found == [(None,)]


def test_a_limited_key_sees_no_model_of_another_dataset(
    serve: Serve, engine: Engine, snapshots: Path, database: DatabaseSettings
) -> None:
    key = add_key(database.libpq_url, "read", datasets=["mood"])
    version = store_model(engine, snapshots, train())
    with serve(require_api_key=True) as client:
        client.headers["Authorization"] = f"Bearer {key}"
        wait_until(lambda: client.get("/models/x").status_code == 404)
        assert client.get(f"/models/{version}").status_code == 404
        for answer in (
            client.get("/models"),
            client.get("/suspects"),
            client.post("/score", json={"texts": ["a"]}),
        ):
            assert (answer.status_code, answer.json()["code"]) == (403, "dataset_not_allowed")
