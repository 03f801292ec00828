"""POST /texts/bulk on a real Postgres."""

import gzip
import json
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import psutil
import psycopg
import pytest
from backports import zstd

from core.text_identity import text_id
from tests.programs import Program
from tests.waiting import wait_for

NDJSON = {"Content-Type": "application/x-ndjson"}
CSV = {"Content-Type": "text/csv"}
ARRAY = {"Content-Type": "application/json"}

SHARED_CSV = Path(__file__).parents[4] / "shared" / "data" / "toxicity_en.csv"


def test_a_bad_row_costs_only_itself(client: httpx.Client, connection: psycopg.Connection) -> None:
    lines = ['{"text": "one"}', "", '{"text": "two", "label": "toxc"}', "nope", "[1]", '{"text": " one "}']
    result = client.post("/texts/bulk", content="\n".join(lines), headers=NDJSON).json()
    errors, groups = result.pop("errors"), result.pop("error_groups")
    assert [(group["count"], group["rows"]) for group in groups] == [(1, [3]), (1, [4]), (1, [5])]
    assert result == {"received": 5, "accepted": 1, "duplicates": 1, "rejected": 3}
    assert [(e["row"], e["code"]) for e in errors] == [
        (3, "unknown_label"),
        (4, "malformed_json"),
        (5, "not_an_object"),
    ]
    assert connection.execute("select text from texts").fetchall() == [("one",)]


def test_only_the_first_hundred_errors_are_listed(client: httpx.Client) -> None:
    result = client.post("/texts/bulk", content="x\n" * 1000, headers=NDJSON).json()
    assert (result["rejected"], len(result["errors"])) == (1000, 100)
    [group] = result["error_groups"]
    assert (group["count"], group["rows"]) == (1000, [1, 2, 3, 4, 5])


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        (NDJSON, '{"text": "one"}\n{"text": 2}\n'),
        (ARRAY, '[{"text": "one"}, {"text": 2}]'),
        (CSV, "text,score\none,\ntwo,high\n"),
    ],
)
def test_abort_stores_all_or_nothing(client: httpx.Client, headers: dict[str, str], body: str) -> None:
    answer = client.post("/texts/bulk?on_error=abort", content=body, headers=headers)
    assert answer.status_code == 422
    problem = answer.json()
    counts = {name: problem[name] for name in ("received", "accepted", "duplicates", "rejected")}
    assert counts == {"received": 2, "accepted": 0, "duplicates": 0, "rejected": 1}
    assert problem["errors"][0]["row"] == 2
    assert client.get("/queue").json()["pending"] == 0


def test_abort_stores_all_where_all_is_well(client: httpx.Client) -> None:
    result = client.post(
        "/texts/bulk?on_error=abort", content='{"text": "a"}\n{"text": "b"}', headers=NDJSON
    ).json()
    assert (result["accepted"], client.get("/queue").json()["pending"]) == (2, 2)


def test_csv_with_mapping_and_metadata(client: httpx.Client, connection: psycopg.Connection) -> None:
    body = 'comment,is_toxic,lang\n"two\nlines",Toxic,en\nfine,Not Toxic,de\n'
    parameters = {
        "text": "comment",
        "label": "is_toxic",
        "label_map": "Toxic:toxic,Not Toxic:non_toxic",
        "source": "sample",
        "metadata": "all",
    }
    assert client.post("/texts/bulk", params=parameters, content=body, headers=CSV).json()["accepted"] == 2
    rows = connection.execute(
        "select text, claimed_label, source, metadata from texts order by sequence"
    ).fetchall()
    assert rows == [
        ("two\nlines", "toxic", "sample", {"lang": "en"}),
        ("fine", "non_toxic", "sample", {"lang": "de"}),
    ]


@pytest.mark.parametrize(
    ("path", "headers", "body", "status", "code"),
    [
        ("/texts/bulk", {"Content-Type": "text/plain"}, "x", 415, "unsupported_media_type"),
        ("/texts/bulk", NDJSON | {"Content-Encoding": "br"}, "x", 415, "unsupported_media_type"),
        ("/texts/bulk?text=body", CSV, "text\nx\n", 422, "unknown_column"),
        ("/texts/bulk?txt=body", CSV, "text\nx\n", 422, "invalid_fields"),
        ("/texts/bulk?on_error=ignore", CSV, "text\nx\n", 422, "invalid_fields"),
        ("/texts/bulk?label_map=x", CSV, "text\nx\n", 422, "invalid_fields"),
        ("/texts/bulk?dataset=none", CSV, "text\nx\n", 422, "invalid_fields"),
        ("/texts/bulk", CSV, 'text,"x\n', 400, "malformed_csv"),
        ("/texts/bulk?label_map=1:toxc", CSV, "text\nx\n", 422, "invalid_fields"),
        ("/texts/bulk?charset=klingon", CSV, "text\nx\n", 422, "invalid_fields"),
        ("/texts/bulk?delimiter=x", CSV, "text\nx\n", 422, "invalid_fields"),
        ("/texts/bulk", CSV, "comment\n", 422, "unknown_column"),
        ("/texts/bulk", ARRAY, "{}", 400, "malformed_json"),
        ("/texts/bulk", {"Content-Type": "application/vnd.apache.parquet"}, "PAR1", 400, "malformed_parquet"),
    ],
)
def test_what_cannot_be_read_is_a_problem(
    client: httpx.Client, path: str, headers: dict[str, str], body: str, status: int, code: str
) -> None:
    answer = client.post(path, content=body, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (status, code)


@pytest.mark.parametrize(("encoding", "compress"), [("gzip", gzip.compress), ("zstd", zstd.compress)])
def test_compressed_bodies(client: httpx.Client, encoding: str, compress: Callable[[bytes], bytes]) -> None:
    body = compress("".join(f'{{"text": "{n}"}}\n' for n in range(3000)).encode())
    headers = NDJSON | {"Content-Encoding": encoding}
    assert client.post("/texts/bulk", content=body, headers=headers).json()["accepted"] == 3000
    cut = client.post("/texts/bulk", content=body[:-1], headers=headers)
    assert (cut.status_code, cut.json()["code"]) == (400, "malformed_encoding")
    bomb = client.post("/texts/bulk", content=compress(b" " * 200_000_000), headers=headers)
    assert (bomb.status_code, bomb.json()["code"]) == (413, "body_is_a_bomb")


def test_rows_before_a_fault_are_stored_and_counted(client: httpx.Client) -> None:
    answer = client.post("/texts/bulk", content='[{"text": "a"}, {"text": "b"}, ', headers=ARRAY)
    assert answer.status_code == 400
    assert answer.json()["accepted"] == client.get("/queue").json()["pending"] == 2


def test_receive_order_is_the_order_of_rows(client: httpx.Client, connection: psycopg.Connection) -> None:
    body = "\n".join(json.dumps({"text": f"{n:05}"}) for n in range(12_000))
    client.post("/texts/bulk", content=body, headers=NDJSON)
    rows = [text for (text,) in connection.execute("select text from texts order by sequence")]
    assert rows == sorted(rows)
    assert len(rows) == 12_000


def test_a_text_that_another_session_is_storing_just_now_is_a_duplicate(
    client: httpx.Client, connection: psycopg.Connection
) -> None:
    waits = "select from pg_locks where not granted and locktype = 'transactionid'"
    body = "".join(f'{{"text": "{n}"}}\n' for n in range(100))
    with ThreadPoolExecutor() as thread:
        with connection.transaction():
            connection.execute(
                "insert into texts (id, dataset, text) values (%s, 'toxicity', '7')", [text_id("toxicity", "7")]
            )
            answer = thread.submit(client.post, "/texts/bulk", content=body, headers=NDJSON)
            wait_for(lambda: connection.execute(waits).fetchone() is not None)
        result = answer.result().json()
    assert (result["accepted"], result["duplicates"]) == (99, 1)
    assert connection.execute("select count(*) from texts").fetchone() == (100,)


def test_uploads_of_the_same_texts_do_not_block_each_other(client: httpx.Client) -> None:
    batches = [[f'{{"text": "{n}"}}\n' for n in range(start, start + 5000)] for start in range(0, 20_000, 5000)]
    bodies = ["".join(map("".join, batches)), "".join("".join(reversed(batch)) for batch in batches)]
    with ThreadPoolExecutor() as threads:
        answers = list(threads.map(lambda body: client.post("/texts/bulk", content=body, headers=NDJSON), bodies))
    assert [answer.status_code for answer in answers] == [200, 200]
    assert sum(answer.json()["accepted"] for answer in answers) == 20_000


def test_a_client_that_goes_away_has_stored_a_prefix(client: httpx.Client, connection: psycopg.Connection) -> None:
    def body() -> Iterator[bytes]:
        for n in range(20_000):
            yield json.dumps({"text": f"text {n}"}).encode() + b"\n"
        raise ConnectionError("the client crashed")

    with pytest.raises(ConnectionError):
        client.post("/texts/bulk", content=body(), headers=NDJSON)
    stored = connection.execute("select text from texts").fetchall()
    assert {text for (text,) in stored} == {f"text {n}" for n in range(len(stored))}
    whole = "\n".join(json.dumps({"text": f"text {n}"}) for n in range(20_000))
    result = client.post("/texts/bulk", content=whole, headers=NDJSON).json()
    assert result["accepted"] + result["duplicates"] == 20_000
    assert connection.execute("select count(*) from texts").fetchone() == (20_000,)


def _memory_bytes(program: Program) -> int:
    process = psutil.Process(program.process.pid)
    return sum(each.memory_info().rss for each in [process, *process.children()])


@pytest.mark.soak
def test_a_long_upload_takes_constant_memory(client: httpx.Client, shared_ingestion: Program) -> None:
    filler = "x" * 2000

    def rows(count: int) -> Iterator[bytes]:
        for n in range(count):
            yield json.dumps({"text": f"{n % 1000} {filler}"}).encode() + b"\n"

    client.post("/texts/bulk", content=rows(20_000), headers=NDJSON)
    before = _memory_bytes(shared_ingestion)
    result = client.post("/texts/bulk", content=rows(80_000), headers=NDJSON).json()
    grown = _memory_bytes(shared_ingestion) - before
    assert result["received"] == 80_000
    assert grown < 60e6, f"160 MB of body took {grown / 1e6:.0f} MB of memory"


def test_too_many_uploads_at_a_time_are_told_to_wait(client: httpx.Client) -> None:
    def refusals(depth: int) -> Iterator[bytes]:
        yield b'{"text": "a"}\n'
        if depth:
            answer = httpx.post(
                f"{client.base_url}/texts/bulk", content=refusals(depth - 1), headers=NDJSON, timeout=60
            )
            found.append(answer)
        yield b'{"text": "b"}\n'

    found: list[httpx.Response] = []
    client.post("/texts/bulk", content=refusals(5), headers=NDJSON)
    refused = [answer for answer in found if answer.status_code != 200]
    assert {(answer.status_code, answer.json()["code"]) for answer in refused} == {(429, "share_exceeded")}
    assert all(answer.headers["retry-after"] for answer in refused)


@pytest.mark.skipif(not SHARED_CSV.exists(), reason="the sample of real comments is not beside the project")
def test_real_comments_twice(client: httpx.Client) -> None:
    parameters = {"label": "is_toxic", "label_map": "Toxic:toxic,Not Toxic:non_toxic"}
    results = [
        client.post("/texts/bulk", params=parameters, content=SHARED_CSV.read_bytes(), headers=CSV).json()
        for _ in range(2)
    ]
    assert [(r["received"], r["accepted"], r["duplicates"], r["rejected"]) for r in results] == [
        (1000, 999, 1, 0),
        (1000, 0, 1000, 0),
    ]


def test_outcomes_are_metrics(client: httpx.Client) -> None:
    def outcomes() -> dict[str, float]:
        found = re.findall(
            r'ingestion_submissions_total\{outcome="(\w+)"\} ([\d.e+]+)', client.get("/metrics").text
        )
        return {outcome: float(count) for outcome, count in found}

    before = {"accepted": 0.0, "duplicate": 0.0, "rejected": 0.0} | outcomes()
    client.post("/texts/bulk", content='{"text": "a"}\n{"text": "a"}\nx\n', headers=NDJSON)
    assert outcomes() == {outcome: count + 1 for outcome, count in before.items()}
