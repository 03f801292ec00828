"""Searches over HTTP, and the index when the program is killed or its folder is damaged."""

import random
import shutil
import threading
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import text
from starlette.testclient import TestClient

from serving_api.search.follower import SearchFollower
from tests.integration.serving_api.conftest import World
from tests.integration.serving_api.labelling import Labeller, wait_until
from tests.programs import running

TEXTS = ["You are toxic", "toxicity, you are", "are you detoxed?", "这是有毒的话", "كلام سام", "nothing here 🤬"]


@pytest.fixture(scope="module")
def searched(shared: World) -> TestClient:
    for words in TEXTS:
        shared.labeller.add_label(words)
    shared.labeller.wait_for(shared.replica)
    follower: SearchFollower = shared.client.app.state.search  # type: ignore[attr-defined]
    wait_until(lambda: follower.version == shared.replica.loaded().version)
    return shared.client


def find(client: TestClient, **parameters: Any) -> list[str]:
    answer = client.get("/texts", params=parameters)
    assert answer.status_code == 200, answer.text
    return [item["text"] for item in answer.json()["items"]]


WAYS: list[tuple[dict[str, Any], list[int]]] = [
    ({"q": "TOX"}, [2, 1, 0]),
    ({"q": "TOX", "order": "oldest"}, [0, 1, 2]),
    ({"q": "TOX", "order": "relevance"}, [0, 2, 1]),
    ({"q": "toxic", "match": "words"}, [0]),
    ({"q": "you are", "match": "words"}, [2, 1, 0]),
    ({"q": "you are", "match": "phrase"}, [1, 0]),
    ({"q": "tox yo", "match": "prefix"}, [1, 0]),
    ({"q": "毒", "match": "words"}, [3]),
    ({"q": "有毒的"}, [3]),
    ({"q": "سام", "match": "phrase"}, [4]),
    ({"q": "🤬"}, [5]),
    ({"q": "x" * 1000}, []),
    ({"q": "tox", "label": "non_toxic"}, []),
]


def test_each_way_to_search(searched: TestClient) -> None:
    for parameters, found in WAYS:
        texts, wanted = find(searched, **parameters), [TEXTS[number] for number in found]
        if parameters.get("order") == "relevance":
            assert sorted(texts) == sorted(wanted), parameters
        else:
            assert texts == wanted, parameters


def test_highlights_are_offsets_of_what_matches(searched: TestClient) -> None:
    items = searched.get("/texts", params={"q": "you", "match": "words"}).json()["items"]
    assert [item["highlights"] for item in items] == [[[4, 7]], [[10, 13]], [[0, 3]]]
    assert "highlights" not in searched.get("/texts").json()["items"][0]


def test_cursor_belongs_to_its_search(searched: TestClient) -> None:
    cursor = searched.get("/texts?q=tox&order=relevance&limit=1").json()["next_cursor"]
    assert len(find(searched, q="tox", order="relevance", limit=5, cursor=cursor)) == 2
    for other in ("q=tox&order=newest", "q=to&order=relevance", "q=tox&order=relevance&match=words"):
        assert searched.get(f"/texts?{other}&cursor={cursor}").status_code == 409


UNFIT = {
    "order=relevance": "order",
    "match=words": "match",
    "q=%20%09&match=words": "q",
    "q=" + "a%20" * 33 + "&match=prefix": "q",
}
HOSTILE = [
    "*",
    "?",
    '"',
    "a AND b",
    "(",
    "[a",
    "\\",
    "\\E",
    "^$",
    "text:a",
    "~1",
    "-a",
    "'; --",
    " ",
    "\ufffe",
    "\u0301",
]


def test_what_does_not_go_together_is_named(searched: TestClient) -> None:
    for query, parameter in UNFIT.items():
        answer = searched.get(f"/texts?{query}")
        assert answer.status_code == 409, query
        assert answer.json()["errors"][0]["parameter"] == parameter


@pytest.mark.parametrize("match", ["substring", "words", "phrase", "prefix"])
def test_nothing_in_a_search_has_a_meaning_of_its_own(searched: TestClient, match: str) -> None:
    for q in HOSTILE:
        answer = searched.get("/texts", params={"q": q, "match": match})
        assert answer.status_code == (409 if q == " " and match != "substring" else 200), q
        if match == "substring":
            assert [item["text"] for item in answer.json()["items"]] == [t for t in reversed(TEXTS) if q in t]
    assert searched.app.state.search.version is not None, "the index was taken for damaged"  # type: ignore[attr-defined]


def damage(folder: Path, chance: random.Random) -> None:
    """Break the index in one of the ways that a disk or a person does."""
    files = [file for file in folder.iterdir() if file.suffix != ".lock"] if folder.is_dir() else []
    kind = chance.randrange(4)
    if not files or kind == 0:
        shutil.rmtree(folder, ignore_errors=True)
        return
    file = chance.choice(sorted(files))
    content = bytearray(file.read_bytes())
    if kind == 1 or not content:
        file.unlink()
    elif kind == 2:
        file.write_bytes(content[: chance.randrange(len(content))])
    else:
        content[chance.randrange(len(content))] ^= 0xFF
        file.write_bytes(content)


@pytest.mark.soak
@pytest.mark.parametrize("harm", [False, True])
def test_killed_at_any_time_it_finds_every_label(
    labeller: Labeller, database_url: str, tmp_path: Path, harm: bool
) -> None:
    environment = {"DATABASE_URL": database_url, "DATA_DIR": str(tmp_path), "REPLICA_POLL_SECONDS": "0.05"}
    chance, stop, count = random.Random(11), threading.Event(), 0  # noqa: S311

    def write() -> None:
        nonlocal count
        while not stop.is_set():
            id_ = labeller.add_label(f"number {count} of many")
            if count % 5 == 0:
                labeller.annotate({id_: {}})
            count += 1
            time.sleep(0.02)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(4 if harm else 2):
            with running("serving_api", environment, tmp_path / "log", "/readyz") as program:
                until = time.monotonic() + chance.uniform(0, 1.5)
                while time.monotonic() < until:
                    check(program.url)
                program.kill()
            if harm:
                damage(tmp_path / "serving" / "search", chance)
    finally:
        stop.set()
        writer.join()
    with running("serving_api", environment, tmp_path / "log", "/readyz") as program:
        wait_until(lambda: version(program.url) == labeller.newest_stamp())
        wait_until(lambda: indexed(program.url) == labeller.newest_stamp())
        assert walk(program.url, {"q": "OF many"}) == held(labeller)
        assert sorted(walk(program.url, {"q": "many", "match": "words", "order": "relevance"})) == sorted(
            held(labeller)
        )
    assert "search.failed" not in (tmp_path / "log").read_text()


def check(url: str) -> None:
    """Compare a search with the list of all texts, where both are of one version."""
    both = [httpx.get(f"{url}/texts", params={"limit": 1000, **q}).json() for q in ({}, {"q": "of many"})]
    if both[0]["version"] == both[1]["version"]:
        lists = [[item["id"] for item in page["items"]] for page in both]
        assert lists[0] == lists[1]


def walk(url: str, parameters: dict[str, Any]) -> list[str]:
    ids: list[str] = []
    parameters = parameters | {"limit": 200}
    while True:
        page = httpx.get(f"{url}/texts", params=parameters).raise_for_status().json()
        ids += [item["id"] for item in page["items"]]
        if page["next_cursor"] is None:
            return ids
        parameters["cursor"] = page["next_cursor"]


def version(url: str) -> int:
    return int(httpx.get(f"{url}/texts?limit=1").headers.get("x-replica-version", -1))


def indexed(url: str) -> int:
    lines = httpx.get(f"{url}/metrics").text.splitlines()
    return int(float(next(line for line in lines if line.startswith("serving_search_index_version ")).split()[1]))


def held(labeller: Labeller) -> list[str]:
    statement = text(
        "select text_id::text from labels where status <> 'withdrawn' order by labelled_at desc, text_id"
    )
    with labeller.engine.connect() as connection:
        return list(connection.scalars(statement))
