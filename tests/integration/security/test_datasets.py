"""A key that is limited to one dataset sees and changes nothing of another, at any endpoint of both APIs.

Everything of the hidden dataset has a mark in it: texts, sources, annotators, the name of a snapshot. A key
without a limit asks first, and twice, so that caches hold what the limited key must not get.
"""

import json
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import httpx
import psycopg
import pytest
from pydantic import SecretStr
from sqlalchemy import Engine, create_engine, insert

from core.models import Model
from core.settings import DatabaseSettings
from tests.conftest import fresh_database
from tests.integration.security.conftest import add_key
from tests.integration.serving_api.labelling import Labeller
from tests.integration.serving_api.modelling import make_manifest, predict, train
from tests.programs import Program, running
from tests.waiting import wait_for

MARK = "zebra"
SNAPSHOT = f"{MARK}-snapshot"
OTHER = "open-snapshot"
HIDDEN, SHOWN = "mood", "toxicity"
DATASETS = """
[toxicity]
labels = ["toxic", "non_toxic"]
guidelines = "Is it toxic?"

[mood]
model.enabled = true
labels = ["yes", "no"]
guidelines = "Is it zebra?"
"""
# TOXICITY means a label of the hidden dataset.
COMMENT = {"comment": {"text": "a"}, "requestedAttributes": {"TOXICITY": {}}}
SUGGESTION = {"comment": {"text": "a"}, "attributeScores": {"TOXICITY": {"summaryScore": {"value": 1}}}}
NDJSON = {"Content-Type": "application/x-ndjson"}
# Without a key, and with nothing of a text in it.
OPEN = {"GET /", "GET /healthz", "GET /readyz", "GET /metrics", "POST /webhooks/argilla"}
OPEN |= {"GET /$discovery/rest", "GET /discovery/v1/apis/commentanalyzer/v1alpha1/rest"}
MODEL = "0123456789ab"


@dataclass(frozen=True)
class Ask:
    """A request for data of the hidden dataset, and the status for the limited key; 200: it sees less."""

    path: str
    status: int
    query: dict[str, str] = field(default_factory=dict)
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)
    shows: bool = True  # whether a key without a limit sees the mark


@dataclass(frozen=True)
class World:
    ingestion: Program
    serving: Program
    database_url: str
    everything: dict[str, str]
    limited: dict[str, str]
    elsewhere: dict[str, str]
    text: UUID
    import_id: str

    def ask(self, api: str, method: str, ask: Ask, headers: dict[str, str]) -> httpx.Response:
        program: Program = getattr(self, api)
        sent = headers | ask.headers
        url = program.url + ask.path
        if isinstance(ask.body, str):
            return httpx.request(method, url, params=ask.query, content=ask.body, headers=sent, timeout=60)
        return httpx.request(method, url, params=ask.query, json=ask.body, headers=sent, timeout=60)


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


@pytest.fixture(scope="module")
def world(
    admin_database_url: str, template_database: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("limited")
    (folder / "datasets.toml").write_text(DATASETS)
    with fresh_database(admin_database_url, template_database) as url, ExitStack() as stack:
        everything = bearer(add_key(url, "admin"))
        limited = bearer(add_key(url, "admin", datasets=[SHOWN]))
        elsewhere = bearer(add_key(url, "admin", datasets=[HIDDEN]))
        text = fill(url)
        env = {"DATABASE_URL": url, "REQUIRE_API_KEY": "true", "DATA_DIR": str(folder)}
        env["DATASETS_FILE"] = str(folder / "datasets.toml")
        env["PERSPECTIVE_ATTRIBUTES"] = f"TOXICITY={HIDDEN}.yes"
        ingestion = stack.enter_context(running("ingestion_api", env, folder / "ingestion.log"))
        serving = stack.enter_context(running("serving_api", env, folder / "serving.log", probe="/readyz"))
        for key in (everything, limited, elsewhere):
            wait_for(lambda: httpx.get(f"{ingestion.url}/queue", headers=key).status_code == 200)  # noqa: B023
            wait_for(lambda: httpx.get(f"{serving.url}/snapshots", headers=key).status_code == 200)  # noqa: B023
        for name, dataset in ((SNAPSHOT, HIDDEN), (OTHER, SHOWN)):
            body = {"name": name, "dataset": dataset, "splits": {"train": 1}}
            made = httpx.post(f"{serving.url}/snapshots", json=body, headers=everything)
            assert made.status_code == 201, made.text
        import_id = make_import(ingestion, everything)
        yield World(ingestion, serving, url, everything, limited, elsewhere, text, import_id)


def fill(url: str) -> UUID:
    engine = create_engine(DatabaseSettings(url=SecretStr(url)).sqlalchemy_url)
    labeller = Labeller(engine)
    labeller.add_label("seen", source="open")
    id_ = labeller.add_text(f"a {MARK} text", HIDDEN, source=MARK)
    labeller.annotate({id_: {f"{MARK} one": "yes", f"{MARK} two": "yes"}}, HIDDEN)
    disputed = labeller.add_text(f"a disputed {MARK}", HIDDEN)
    labeller.annotate({disputed: {f"{MARK} one": "yes", f"{MARK} two": "no"}}, HIDDEN)
    add_model(engine, id_)
    engine.dispose()
    return id_


def add_model(engine: Engine, suspect: UUID) -> None:
    """Store a model's row, without its files, and a prediction that doubts a label."""
    manifest = make_manifest(train(("yes", "no")), HIDDEN).model_copy(update={"decision": MARK, "version": MODEL})
    with engine.begin() as connection:
        connection.execute(
            insert(Model).values(
                dataset=HIDDEN,
                version=MODEL,
                created_at=manifest.created_at,
                is_active=True,
                decision=MARK,
                manifest=manifest.model_dump(mode="json"),
            )
        )
    predict(engine, MODEL, {suspect: ("no", 0.9, 0.1)}, quality_of="yes")


def make_import(ingestion: Program, headers: dict[str, str]) -> str:
    rows = [{"text": f"{MARK} rejected", "label": "nonsense"}, {"text": f"{MARK} taken"}]
    body = "".join(json.dumps(row | {"dataset": HIDDEN}) + "\n" for row in rows)
    made = httpx.post(f"{ingestion.url}/imports", content=body, headers=headers | NDJSON)
    assert made.status_code == 202, made.text
    path = f"{ingestion.url}/imports/{made.json()['id']}"
    wait_for(lambda: httpx.get(path, headers=headers).json()["state"] == "done")
    return str(made.json()["id"])


def asks_of_ingestion(world: World) -> dict[str, list[Ask]]:
    of_import = f"/imports/{world.import_id}"
    row = json.dumps({"text": f"{MARK} new", "dataset": HIDDEN})
    part = {"Upload-Offset": "0", "Content-Type": "application/partial-upload"}
    return {
        "POST /texts": [Ask("/texts", 403, body={"text": f"{MARK} new", "dataset": HIDDEN})],
        "POST /texts/bulk": [
            Ask("/texts/bulk", 403, {"dataset": HIDDEN}, row, NDJSON),
            Ask("/texts/bulk", 200, body=row, headers=NDJSON),
        ],
        "GET /texts/{id}": [Ask(f"/texts/{world.text}", 404)],
        "GET /queue": [Ask("/queue", 403, {"dataset": HIDDEN}, shows=False)],
        "GET /datasets": [Ask("/datasets", 200, shows=False)],
        "POST /imports": [Ask("/imports", 403, {"dataset": HIDDEN}, row, NDJSON)],
        "POST /imports/preview": [Ask("/imports/preview", 403, {"dataset": HIDDEN}, row, NDJSON)],
        "GET /imports": [Ask("/imports", 200, shows=False)],
        "GET /imports/{id}": [Ask(of_import, 404, shows=False)],
        "HEAD /imports/{id}": [Ask(of_import, 404, shows=False)],
        "PATCH /imports/{id}": [Ask(of_import, 404, body=row, headers=part)],
        "DELETE /imports/{id}": [Ask(of_import, 404)],
        "GET /imports/{id}/rejects": [Ask(f"{of_import}/rejects", 404)],
    }


def asks_of_serving(world: World) -> dict[str, list[Ask]]:
    hidden = {"dataset": HIDDEN}
    live = hidden | {"config": "live", "split": "train"}
    stored = hidden | {"config": SNAPSHOT, "split": "train"}
    elsewhere = {"dataset": SHOWN, "config": SNAPSHOT, "split": "train"}
    of_snapshot = f"/snapshots/{SNAPSHOT}"
    asks = {
        "GET /texts": [Ask("/texts", 403, hidden), Ask("/texts", 403, {"label": "yes"})],
        "GET /texts/{id}": [Ask(f"/texts/{world.text}", 404)],
        "GET /disputed": [Ask("/disputed", 403, hidden)],
        "GET /suspects": [Ask("/suspects", 403, hidden)],
        "GET /models": [Ask("/models", 403, hidden)],
        "GET /models/{version}": [Ask(f"/models/{MODEL}", 404)],
        "POST /score": [Ask("/score", 403, body={"texts": ["a"], "dataset": HIDDEN})],
        "POST /v1alpha1/comments:analyze": [Ask("/v1alpha1/comments:analyze", 403, body=COMMENT)],
        "POST /v1alpha1/comments:suggestscore": [Ask("/v1alpha1/comments:suggestscore", 403, body=SUGGESTION)],
        "GET /changes": [
            Ask("/changes", 403, hidden),
            Ask("/changes", 403, hidden, headers={"Accept": "text/event-stream"}, shows=False),
        ],
        "GET /stats": [Ask("/stats", 403, hidden)],
        "GET /stats/facets": [Ask("/stats/facets", 403, hidden)],
        "GET /stats/days": [Ask("/stats/days", 403, hidden)],
        "GET /stats/agreement": [Ask("/stats/agreement", 403, hidden)],
        "GET /stats/annotators": [Ask("/stats/annotators", 403, hidden)],
        "GET /yes_texts": [Ask("/yes_texts", 403)],
        "GET /no_texts": [Ask("/no_texts", 403, shows=False)],
        "GET /toxic_texts": [Ask("/toxic_texts", 403, hidden, shows=False)],
        "GET /non_toxic_texts": [Ask("/non_toxic_texts", 403, hidden, shows=False)],
        "GET /export.parquet": [Ask("/export.parquet", 403, hidden)],
        "GET /export.arrow": [Ask("/export.arrow", 403, hidden)],
        "GET /export.arrows": [Ask("/export.arrows", 403, hidden)],
        "GET /export.ndjson": [Ask("/export.ndjson", 403, hidden), Ask("/export.ndjson", 403, {"label": "yes"})],
        "GET /export.csv": [Ask("/export.csv", 403, hidden)],
        "POST /snapshots": [Ask("/snapshots", 403, body=hidden)],
        "GET /snapshots": [Ask("/snapshots", 200)],
        "GET /snapshots/{name}": [Ask(of_snapshot, 404)],
        "GET /snapshots/{name}/README.md": [Ask(f"{of_snapshot}/README.md", 404)],
        "GET /snapshots/{name}/croissant.json": [Ask(f"{of_snapshot}/croissant.json", 404)],
        "GET /snapshots/{name}/snapshot.json": [Ask(f"{of_snapshot}/snapshot.json", 404)],
        "GET /snapshots/{name}/{split}.parquet": [Ask(f"{of_snapshot}/train.parquet", 404, shows=False)],
        "GET /snapshots/{a}/diff/{b}": [
            Ask(f"{of_snapshot}/diff/{SNAPSHOT}", 404, shows=False),
            Ask(f"/snapshots/{OTHER}/diff/{SNAPSHOT}", 404, shows=False),
        ],
        "DELETE /snapshots/{name}": [Ask(of_snapshot, 404, shows=False)],
        "POST /snapshots/{name}/rewrite": [
            Ask(f"{of_snapshot}/rewrite", 404, body={"without": [str(world.text)]})
        ],
        "GET /forgotten": [Ask("/forgotten", 200, shows=False)],
        "GET /search": [
            Ask("/search", 403, live | {"query": MARK}),
            Ask("/search", 403, stored | {"query": MARK}),
        ],
        "GET /splits": [Ask("/splits", 403, hidden)],
        "GET /parquet": [Ask("/parquet", 403, hidden)],
        "GET /size": [Ask("/size", 403, hidden)],
        "GET /croissant": [
            Ask("/croissant", 403, hidden, shows=False),
            Ask("/croissant", 403, hidden | {"config": SNAPSHOT}, shows=False),
        ],
        "GET /info": [Ask("/info", 403, hidden)],
        "GET /is-valid": [Ask("/is-valid", 403, hidden, shows=False)],
    }
    for path in ("/first-rows", "/rows", "/filter", "/statistics"):
        shows = path != "/statistics"  # numbers only
        asks[f"GET {path}"] = [Ask(path, 403, live, shows=shows), Ask(path, 403, stored, shows=shows)]
        asks[f"GET {path}"].append(Ask(path, 404, elsewhere, shows=False))
    return asks


def operations(program: Program) -> list[str]:
    paths: dict[str, Any] = httpx.get(f"{program.url}/openapi.json").json()["paths"]
    return [f"{method.upper()} {path}" for path, methods in paths.items() for method in methods]


def stored(world: World) -> tuple[Any, ...]:
    """Return the stored rows of the hidden dataset."""
    with psycopg.connect(world.database_url) as connection:
        texts = connection.execute("select count(*) from texts where dataset = %s", [HIDDEN]).fetchone()
        imports = connection.execute(
            "select id, state, upload_offset from imports where datasets is null"
        ).fetchall()
    files = httpx.get(f"{world.serving.url}/snapshots/{SNAPSHOT}", headers=world.everything).json()
    return texts, imports, files["splits"]


@pytest.mark.parametrize("api", ["ingestion", "serving"])
def test_nothing_of_another_dataset_is_seen_or_changed(world: World, api: str) -> None:
    asks = asks_of_ingestion(world) if api == "ingestion" else asks_of_serving(world)
    listed = operations(getattr(world, api))
    assert set(listed) - OPEN == set(asks), "say above how this endpoint is asked for another dataset's data"
    before = stored(world)
    for operation in listed:
        method = operation.split()[0]
        for ask in asks.get(operation, []):
            assert_hidden(world, api, method, ask)
            if method == "GET":
                assert_hidden(world, api, "HEAD", ask)
    assert stored(world) == before


def assert_hidden(world: World, api: str, method: str, ask: Ask) -> None:
    where = (method, ask.path, ask.query)
    headers = world.limited
    is_endless = "Accept" in ask.headers
    if method in {"GET", "HEAD"} and not is_endless:
        for _ in range(2):  # the second is a cached one
            seen = world.ask(api, method, ask, world.everything)
            assert seen.status_code < 500, where
        if ask.shows:
            assert seen.status_code in {200, 204}, (*where, seen.text)
            is_compressed = ask.path.endswith((".parquet", ".arrow"))
            assert method == "HEAD" or is_compressed or MARK in seen.text, (*where, seen.text)
        headers = headers | {"If-None-Match": seen.headers.get("etag", "*"), "X-Request-ID": "1"}
    refused = world.ask(api, method, ask, headers)
    assert refused.status_code == ask.status, (*where, refused.text)
    said = refused.text.replace(SNAPSHOT, "") if ask.status == 404 else refused.text  # the client's own words
    assert MARK not in said, where
    assert str(world.text) in ask.path or str(world.text) not in said, where
    if ask.path.startswith("/v1alpha1/"):  # Perspective's API, in Google's shape
        assert refused.json()["error"]["details"][0]["reason"] == "DATASET_NOT_ALLOWED", where
    elif method != "HEAD" and ask.status == 403 and "code" in refused.json():
        assert refused.json()["code"] == "dataset_not_allowed", where
        assert SHOWN in refused.json()["detail"], where


def test_a_missing_dataset_is_the_default_one(world: World) -> None:
    """Whatever the key may use: the same request means the same for all keys."""
    for path in ("/texts", "/stats", "/export.csv", "/changes", "/splits"):
        answer = httpx.get(world.serving.url + path, headers=world.elsewhere)
        assert answer.status_code == 403, (path, answer.text)
    answer = httpx.post(f"{world.ingestion.url}/texts", json={"text": "no dataset"}, headers=world.elsewhere)
    assert (answer.status_code, answer.json()["code"]) == (403, "dataset_not_allowed")
    assert answer.json()["detail"].endswith("only: mood.")


def test_what_is_hidden_is_refused_as_what_is_not_there(world: World) -> None:
    missing = "5f3c1f7e-8a6f-8c15-9d3e-0b1f6a4f2d11"
    for program, path in (
        (world.ingestion, "/texts/{}"),
        (world.serving, "/texts/{}"),
        (world.ingestion, "/imports/{}"),
        (world.ingestion, "/imports/{}/rejects"),
    ):
        hidden_id = world.import_id if "imports" in path else str(world.text)
        httpx.get(program.url + path.format(hidden_id), headers=world.everything)
        answers = [
            httpx.get(program.url + path.format(id_), headers=world.limited) for id_ in (hidden_id, missing)
        ]
        assert answers[0].text.replace(hidden_id, missing) == answers[1].text, path
    answers = [
        httpx.get(f"{world.serving.url}/snapshots/{name}", headers=world.limited) for name in (SNAPSHOT, "no")
    ]
    assert answers[0].text == answers[1].text


def test_rows_that_name_another_dataset_are_rejected(world: World) -> None:
    rows = [{"text": "good row"}, {"text": f"{MARK} row", "dataset": HIDDEN}]
    body = "".join(json.dumps(row) + "\n" for row in rows)
    bulk = httpx.post(f"{world.ingestion.url}/texts/bulk", content=body, headers=world.limited | NDJSON).json()
    assert (bulk["accepted"], bulk["rejected"]) == (1, 1)
    assert (bulk["errors"][0]["row"], bulk["errors"][0]["code"]) == (2, "dataset_not_allowed")
    made = httpx.post(f"{world.ingestion.url}/imports", content=body, headers=world.limited | NDJSON).json()
    path = f"{world.ingestion.url}/imports/{made['id']}"
    wait_for(lambda: httpx.get(path, headers=world.limited).json()["state"] == "done")
    done = httpx.get(path, headers=world.limited).json()
    assert (done["duplicates"], done["rejected"]) == (1, 1)
    assert done["errors"][0]["code"] == "dataset_not_allowed"
    assert httpx.get(f"{path}/rejects", headers=world.limited).json()["row"] == 2
    # Its own imports a limited key lists, and no other limited key does.
    listed = httpx.get(f"{world.ingestion.url}/imports", headers=world.limited).json()["items"]
    assert [one["id"] for one in listed] == [made["id"]]
    assert httpx.get(path, headers=world.elsewhere).status_code == 404
    assert httpx.get(f"{world.ingestion.url}/imports", headers=world.elsewhere).json()["items"] == []
    assert httpx.get(path, headers=world.everything).status_code == 200


def test_the_queue_counts_what_the_key_may_use(world: World) -> None:
    everything = httpx.get(f"{world.ingestion.url}/queue", headers=world.everything).json()
    limited = httpx.get(f"{world.ingestion.url}/queue", headers=world.limited).json()
    hidden = httpx.get(f"{world.ingestion.url}/queue", headers=world.elsewhere).json()
    for status in ("pending", "uploaded", "failed", "open_records"):
        assert limited[status] + hidden[status] == everything[status], status
    assert hidden["pending"] > 0
