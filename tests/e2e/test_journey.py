"""The whole way on the real parts: texts in at :8080, labelled in Argilla, labels out at :9000."""

import csv
import random
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from core.text_identity import normalise, text_id
from local_stack.testing import RunningStack
from tests.e2e.uploader.conftest import DATASET, Annotator, ArgillaSpace
from tests.programs import run
from tests.waiting import wait_for

SHARED_CSV = Path(__file__).parents[3] / "shared" / "data" / "toxicity_en.csv"
LABELS = ["toxic", "non_toxic"]
ANSWERED = 40
BUSY_SECONDS = 240  # Argilla computes for most of it, and the machine may be busy
MAPPING = ["--label", "is_toxic", "--label-map", "Toxic:toxic,Not Toxic:non_toxic", "--source", "sample"]


@pytest.fixture(scope="module", params=[300, pytest.param(1000, marks=pytest.mark.soak)])
def comments(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CSV with this number of comments, one of them twice, and line breaks in fields."""
    rows: int = request.param
    if SHARED_CSV.exists():
        with SHARED_CSV.open(newline="") as stream:
            found = [(row["text"], row["is_toxic"]) for row in csv.DictReader(stream)][: rows - 1]
    else:
        found = [(f'Comment "{n}",\nin two lines', ["Toxic", "Not Toxic"][n % 2]) for n in range(rows - 1)]
    file = tmp_path_factory.mktemp("comments") / "comments.csv"
    with file.open("w", newline="") as stream:
        csv.writer(stream).writerows([("text", "is_toxic"), *found, found[rows // 2]])
    return file


@pytest.fixture(scope="module")
def texts(comments: Path) -> dict[str, str]:
    """The distinct texts by their ids."""
    with comments.open(newline="") as stream:
        contents = [normalise(row["text"]) for row in csv.DictReader(stream)]
    return {str(text_id(DATASET, text)): text for text in contents}


@pytest.fixture(scope="module")
def argilla(stack: RunningStack) -> Iterator[ArgillaSpace]:
    headers = {"X-Argilla-Api-Key": stack.argilla_api_key}
    with httpx.Client(base_url=f"{stack.argilla_url}/api/v1/", headers=headers, timeout=240) as http:
        yield ArgillaSpace(http, "annotation", stack.argilla_url, stack.database_url)


class Model:
    """What the annotators said, as plain Python sees it."""

    def __init__(self) -> None:
        self.answers: dict[str, dict[str, tuple[str | None, str]]] = {}

    def say(self, text: str, annotator: str, value: str | None, status: str) -> None:
        self.answers.setdefault(text, {})[annotator] = (value, status)

    def take_back(self, text: str, annotator: str) -> None:
        del self.answers[text][annotator]

    def labels(self) -> dict[str, dict[str, Any]]:
        """What :9000 should serve for each text that has a label."""
        items = {}
        for text, answers in self.answers.items():
            votes = Counter(value for value, status in answers.values() if status == "submitted")
            if not votes:
                continue
            (winner, most), *others = votes.most_common()
            tied = bool(others) and others[0][1] == most
            items[text] = {
                "label": None if tied else winner,
                "status": "disputed" if tied else "labelled",
                "votes": dict(votes),
                "annotations": votes.total(),
                "agreement": most / votes.total(),
            }
        return items


def served(stack: RunningStack, **parameters: str) -> dict[str, dict[str, Any]]:
    """Walk GET /texts to its end; every item must appear once."""
    items: dict[str, dict[str, Any]] = {}
    query = {"limit": "300"} | parameters
    while True:
        page = httpx.get(f"{stack.serving_url}/texts", params=query).raise_for_status().json()
        for item in page["items"]:
            assert item["id"] not in items
            items[item["id"]] = item
        if page["next_cursor"] is None:
            return items
        query["cursor"] = page["next_cursor"]


def labels_served(stack: RunningStack) -> dict[str, dict[str, Any]]:
    fields = ("label", "status", "votes", "annotations", "agreement")
    return {id_: {name: item[name] for name in fields} for id_, item in served(stack).items()}


def annotations_served(stack: RunningStack, id_: str) -> set[tuple[str, str | None, str]]:
    item = httpx.get(f"{stack.serving_url}/texts/{id_}").json()
    return {(a["annotator"], a["value"], a["status"]) for a in item["annotations"]}


def ingest(stack: RunningStack, file: Path) -> None:
    env = stack.env | {"INGESTION_URL": stack.ingestion_url}
    result = run("cli", "ingest", str(file), *MAPPING, env=env)
    assert result.returncode == 0, result.stderr


def answer_all(annotator: Annotator, records: dict[str, str], model: Model, seed: int) -> None:
    """Have an annotator answer the first records, as Argilla's bulk mode does."""
    choose = random.Random(seed)  # noqa: S311 - repeatable on purpose
    items = []
    for text in list(records)[:ANSWERED]:
        value, status = choose.choice(LABELS), choose.choice(["submitted"] * 8 + ["draft", "discarded"])
        model.say(text, annotator.name, value, status)
        items.append({"record_id": records[text], "status": status, "values": {"label": {"value": value}}})
    annotator.http.post("me/responses/bulk", json={"items": items}).raise_for_status()


def records_of(argilla: ArgillaSpace, texts: dict[str, str]) -> dict[str, str]:
    """Argilla's record ids by text id; fails where one is missing or doubled."""
    path = f"datasets/{argilla.dataset()['id']}/records"
    records: list[dict[str, Any]] = []
    for offset in range(0, 1001, 500):
        page = argilla.http.get(path, params={"limit": 500, "offset": offset}).raise_for_status()
        records += page.json()["items"]
    ids = {record["external_id"]: record["id"] for record in records}
    assert len(records) == len(ids) == argilla.visible_count()
    assert ids.keys() == texts.keys()
    return ids


@pytest.mark.timeout(900)
def test_from_files_to_labels(
    stack: RunningStack, comments: Path, texts: dict[str, str], argilla: ArgillaSpace
) -> None:
    # In, twice, while the uploader is killed half-way.
    ingest(stack, comments)

    def queue() -> dict[str, int]:
        counts: dict[str, int] = httpx.get(f"{stack.ingestion_url}/queue").json()
        return counts

    wait_for(lambda: queue()["uploaded"] >= 250)
    stack.kill("uploader")
    ingest(stack, comments)
    wait_for(lambda: queue()["uploaded"] == len(texts), BUSY_SECONDS)
    assert {name: queue()[name] for name in ("pending", "uploading", "failed")} == {
        "pending": 0,
        "uploading": 0,
        "failed": 0,
    }
    records = records_of(argilla, texts)

    # Annotators see the unchanged text, with the claim as a suggestion.
    some = next(iter(texts))
    record = argilla.record(text_id(DATASET, texts[some]))
    assert record["fields"]["text"] == texts[some]
    assert record["suggestions"][0]["value"] in LABELS
    assert record["metadata"]["source"] == "sample"

    # Two annotators answer side by side.
    model = Model()
    annotators = [argilla.add_annotator(name) for name in ("ann", "bob")]
    threads = [
        threading.Thread(target=answer_all, args=(annotator, records, model, seed))
        for seed, annotator in enumerate(annotators)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    wait_for(lambda: labels_served(stack) == model.labels(), BUSY_SECONDS)

    # They change their minds.
    ann, bob = annotators
    for number, text in enumerate(list(records)[:18]):
        annotator = (ann, bob)[number % 2]
        response = next(
            r
            for r in argilla.record(text_id(DATASET, texts[text]))["responses"]
            if r["user_id"] == str(annotator.id)
        )
        match number % 3:
            case 0:
                annotator.edit(response["id"], "toxic")
                model.say(text, annotator.name, "toxic", "submitted")
            case 1:
                body = {"status": "discarded", "values": {}}
                annotator.http.put(f"responses/{response['id']}", json=body).raise_for_status()
                model.say(text, annotator.name, None, "discarded")
            case 2:
                annotator.delete(response["id"])
                model.take_back(text, annotator.name)
    wait_for(lambda: labels_served(stack) == model.labels(), BUSY_SECONDS)

    _check_views(stack, model, texts, ann.name)

    # The replica is a function of Postgres.
    before = served(stack)
    stack.stop_component("serving_api")
    files = list((stack.settings.data_dir / "serving").glob("replica*.duckdb*"))
    assert files
    for file in files:
        file.unlink()
    stack.start_component("serving_api")
    assert served(stack) == before


def _check_views(stack: RunningStack, model: Model, texts: dict[str, str], annotator: str) -> None:
    expected = model.labels()
    toxic = {id_ for id_, item in expected.items() if item["label"] == "toxic"}
    assert served(stack, label="toxic").keys() == toxic
    first_page = httpx.get(f"{stack.serving_url}/toxic_texts", params={"limit": "1000"}).json()
    assert {item["id"] for item in first_page["items"]} == toxic
    stats = httpx.get(f"{stack.serving_url}/stats").json()
    assert stats["by_label"]["toxic"] == len(toxic)
    assert stats["by_status"] == Counter(item["status"] for item in expected.values())
    submitted = {
        id_ for id_, answers in model.answers.items() if answers.get(annotator, ("", ""))[1] == "submitted"
    }
    assert served(stack, annotator=annotator).keys() == submitted
    # A withdrawn draft changes no label, so the test has not waited for it yet.
    said = {id_: {(name, value, status) for name, (value, status) in model.answers[id_].items()} for id_ in toxic}
    wait_for(lambda: all(annotations_served(stack, id_) == said[id_] for id_ in toxic))
    for id_ in toxic:
        assert httpx.get(f"{stack.serving_url}/texts/{id_}").json()["text"] == texts[id_]
    some = next(iter(toxic))
    trace = httpx.get(f"{stack.ingestion_url}/texts/{some}").json()
    assert trace["status"] == "labelled"
    assert trace["received_at"] < trace["uploaded_at"] < trace["labelled_at"]
