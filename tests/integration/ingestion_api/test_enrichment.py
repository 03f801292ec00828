"""Enrichment on its way through the API into Postgres."""

import hashlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import orjson
import psycopg
import pytest

from core.datasets import load_datasets
from core.text_identity import text_id
from ingestion_api.bulk import repository
from ingestion_api.texts.submissions import check_fields
from tests.programs import Program, running
from tests.waiting import wait_for

DATASETS = """
[plain]
labels = ["a", "b"]
guidelines = "g"

[private]
labels = ["a", "b"]
guidelines = "g"
language = true
redact = ["email", "phone", "card", "token"]

[linked]
labels = ["a", "b"]
guidelines = "g"
near_duplicates = "link"

[once]
labels = ["a", "b"]
guidelines = "g"
near_duplicates = "ask_once"
"""
WAITING = "select count(*) from pg_locks where locktype = 'advisory' and not granted"
TEMPLATE = "the driver of bus {} closed the doors right in front of me this morning"
LONG = TEMPLATE.format("seven")


@pytest.fixture(scope="module")
def datasets_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("datasets") / "datasets.toml"
    path.write_text(DATASETS)
    return path


@pytest.fixture(scope="module")
def ingestion_settings(datasets_file: Path) -> dict[str, str]:
    return {"DATASETS_FILE": str(datasets_file), "INGESTION_BULK_CHUNK_ROWS": "7"}


def _post(client: httpx.Client, dataset: str, text: str) -> dict[str, Any]:
    answer = client.post("/texts", json={"dataset": dataset, "text": text})
    assert answer.status_code in {200, 201}, answer.text
    return answer.json()  # type: ignore[no-any-return]


def _read(client: httpx.Client, id_: str) -> dict[str, Any]:
    return client.get(f"/texts/{id_}").json()  # type: ignore[no-any-return]


def _bulk(client: httpx.Client, dataset: str, texts: list[str], **query: str) -> dict[str, Any]:
    body = b"\n".join(orjson.dumps({"dataset": dataset, "text": text}) for text in texts)
    answer = client.post(
        "/texts/bulk", content=body, params=query, headers={"Content-Type": "application/x-ndjson"}
    )
    assert answer.status_code == 200, answer.text
    return answer.json()  # type: ignore[no-any-return]


def _twins(client: httpx.Client, dataset: str, text: str) -> set[str]:
    return {twin["id"] for twin in _read(client, _id(dataset, text))["near_duplicates"]}


def _id(dataset: str, text: str) -> str:
    return str(text_id(dataset, text))


def test_what_is_redacted_reaches_no_table(
    client: httpx.Client, shared_ingestion: Program, connection: psycopg.Connection
) -> None:
    sent = {
        "dataset": "private",
        "text": "Write to bob@example.org, or call me in the evening: +49 30 901820.",
        "external_id": "bob@example.org",
        "metadata": {"from": "bob@example.org"},
    }
    id_ = client.post("/texts", json=sent).json()["id"]
    stored = _read(client, id_)
    assert stored["text"] == "Write to [email], or call me in the evening: [phone]."
    assert id_ == _id("private", stored["text"])
    assert stored["enrichment"]["redacted"] == {"email": 3, "phone": 1}
    assert stored["enrichment"]["language"]["code"] == "en"
    rows = connection.execute("select texts::text from texts").fetchall()
    assert "bob" not in str(rows)
    assert "bob" not in shared_ingestion.log.read_text()


def test_bulk_stores_the_same_as_single_posts(client: httpx.Client) -> None:
    texts = [f"Please write to number{n}@example.org about the order" for n in range(20)]
    assert _bulk(client, "private", texts)["accepted"] == 1
    stored = _read(client, _id("private", "Please write to [email] about the order"))
    assert stored["enrichment"]["redacted"] == {"email": 1}
    assert _post(client, "private", texts[7])["duplicate"]


def test_a_refusal_does_not_repeat_what_it_refuses(client: httpx.Client) -> None:
    sent = {"dataset": "private", "text": "a", "source": "bob@example.org\0", "score": 7}
    answer = client.post("/texts", json=sent)
    assert answer.status_code == 422
    assert "bob" not in answer.text


def test_twins_know_each_other(client: httpx.Client) -> None:
    first = _post(client, "linked", "HELLO out there!!!")
    second = _post(client, "linked", "hello, out there")
    other = _post(client, "linked", "something else altogether")
    assert [second["status"], second["duplicate"]] == ["pending", False]
    assert _read(client, first["id"])["near_duplicates"] == [{"id": second["id"], "similarity": 1.0}]
    assert _read(client, second["id"])["near_duplicates"] == [{"id": first["id"], "similarity": 1.0}]
    assert _read(client, other["id"])["near_duplicates"] == []


@pytest.mark.parametrize(
    "disguised",
    ["hel\u200blo, out\u00ad there", "h\u0336e\u0336llo, out there", "hèllö, out théré", "hello\ufeff out there"],
)
def test_a_disguised_twin_is_found(client: httpx.Client, disguised: str) -> None:
    first = _post(client, "once", "hello, out there")
    second = _post(client, "once", disguised)
    assert second["status"] == "near_duplicate"
    assert _read(client, second["id"])["near_duplicates"] == [{"id": first["id"], "similarity": 1.0}]


def test_a_twin_of_a_text_that_the_first_version_stored_is_found(
    client: httpx.Client, connection: psycopg.Connection
) -> None:
    """Its bands are those of another fold, which kept accents."""
    text = "Tü ës ün ïdiôt fïnî, môn frèrë\u200b!"
    first = _post(client, "linked", text)
    connection.execute("delete from near_duplicate_bands")
    values = [1369990881732163062, first["id"]]
    connection.execute("insert into near_duplicate_bands (band, text_id) values (%s, %s)", values)
    second = _post(client, "linked", text.upper())
    assert _read(client, second["id"])["near_duplicates"] == [{"id": first["id"], "similarity": 1.0}]


def test_datasets_have_no_twins_in_common(client: httpx.Client) -> None:
    for dataset in ("plain", "linked", "once"):
        assert _post(client, dataset, LONG)["status"] == "pending"
        assert _twins(client, dataset, LONG) == set()


@pytest.mark.parametrize("on_error", ["skip", "abort"])
def test_twins_are_found_across_and_within_chunks(client: httpx.Client, on_error: str) -> None:
    _post(client, "linked", TEMPLATE.format("zero"))
    texts = [TEMPLATE.format("zero") + "!" * n for n in range(1, 4)]
    texts += [f"{number} bottles of {number} on the wall {number}" for number in range(100, 130)]
    texts += [TEMPLATE.format("zero").upper()]
    assert _bulk(client, "linked", texts, on_error=on_error)["accepted"] == len(texts)
    assert len(_twins(client, "linked", texts[-1])) == 4
    assert len(_twins(client, "linked", TEMPLATE.format("zero"))) == 4


def test_a_twin_of_an_asked_text_is_held(client: httpx.Client) -> None:
    first = _post(client, "once", LONG)
    second = _post(client, "once", LONG + "!")
    assert (first["status"], second["status"]) == ("pending", "near_duplicate")
    assert _post(client, "once", LONG + "!") == second | {"duplicate": True}
    assert _read(client, second["id"])["status"] == "near_duplicate"
    assert _read(client, second["id"])["near_duplicates"] == [{"id": first["id"], "similarity": 1.0}]
    queue = client.get("/queue", params={"dataset": "once"}).json()
    assert (queue["pending"], queue["near_duplicates"]) == (1, 1)


def test_bulk_holds_all_but_the_first_of_twins(client: httpx.Client, connection: psycopg.Connection) -> None:
    assert _bulk(client, "once", [LONG + "!" * n for n in range(40)])["accepted"] == 40
    counts = connection.execute("select status, count(*) from texts group by status").fetchall()
    assert dict(counts) == {"pending": 1, "near_duplicate": 39}


@pytest.mark.soak
def test_twins_that_are_stored_at_the_same_time_are_linked(
    shared_ingestion: Program,
    connection: psycopg.Connection,
    shared_database_url: str,
    datasets_file: Path,
    tmp_path: Path,
) -> None:
    """Two processes with concurrent POSTs and bulk uploads upload one text of each pair, and link the other."""
    env = {"DATABASE_URL": shared_database_url, "DATASETS_FILE": str(datasets_file)}
    names = [hashlib.sha256(bytes([number])).hexdigest()[:24] for number in range(60)]

    def send(url: str, ending: str) -> None:
        with httpx.Client(base_url=url, timeout=60) as own:
            for name in names[:40]:
                _post(own, "once", f"this is {name}{ending}")
            _bulk(own, "once", [f"this is {name}{ending}" for name in names])

    with running("ingestion_api", env, tmp_path / "second.log") as second, ThreadPoolExecutor(4) as threads:
        done = [
            threads.submit(send, url, mark) for url in (shared_ingestion.url, second.url) for mark in ("!", "?")
        ]
        for future in done:
            future.result()
    asked = connection.execute("select count(*) from texts where status = 'pending'").fetchall()
    links = connection.execute("select count(*) from near_duplicates").fetchall()
    total = connection.execute("select count(*) from texts").fetchall()
    assert (asked, links, total) == ([(60,)], [(60,)], [(120,)])


def test_a_text_waits_for_a_twin_that_is_being_stored(
    client: httpx.Client, connection: psycopg.Connection, shared_database_url: str, datasets_file: Path
) -> None:
    datasets = load_datasets(datasets_file)
    row = check_fields({"text": LONG, "dataset": "once"}, datasets)
    with (
        ThreadPoolExecutor(1) as threads,
        psycopg.connect(shared_database_url) as storing,
        storing.cursor() as cursor,
    ):
        repository.create_stage(cursor)
        repository.stage_texts(cursor, [row])
        repository.insert_staged(cursor, datasets)
        answer = threads.submit(_post, client, "once", LONG + "!")
        wait_for(lambda: connection.execute(WAITING).fetchone() == (1,))
        assert not answer.done()
        storing.commit()
        assert answer.result()["status"] == "near_duplicate"


def test_a_flood_of_twins_is_stored_with_few_links_each(
    client: httpx.Client, connection: psycopg.Connection
) -> None:
    texts = [f"{LONG}{' ' * (n % 3)}{'!?.,;'[n % 5] * (n // 5)}" for n in range(1, 400)]
    accepted = _bulk(client, "linked", texts)["accepted"]
    most = connection.execute("select max(n) from (select count(*) as n from near_duplicates group by text_id)")
    unlinked = connection.execute(
        "select count(*) from texts where id not in (select text_id from near_duplicates)"
    )
    assert most.fetchone() == (10,)
    assert unlinked.fetchone() == (1,)
    assert accepted > 300
