"""POST /imports/preview on a real Postgres."""

import gzip
import io
import json
from typing import Any

import httpx
import psycopg
import pyarrow as pa
import pytest
from pyarrow import parquet

from tests.integration.ingestion_api.importing import ended
from tests.xlsx import write_xlsx

CSV = {"Content-Type": "text/csv"}
NDJSON = {"Content-Type": "application/x-ndjson"}
PARQUET = {"Content-Type": "application/vnd.apache.parquet"}


def preview(client: httpx.Client, body: bytes, headers: dict[str, str] = CSV, **parameters: str) -> dict[str, Any]:
    answer = client.post("/imports/preview", params=parameters, content=body, headers=headers)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def test_what_is_proposed_can_be_imported_as_it_is(client: httpx.Client, connection: psycopg.Connection) -> None:
    text = "Kommentar;is_toxic;Nr\r\nSchöne Grüße an alle Bürger;0;1\r\nDu Depp, du blöder;1;2\r\nx; 7 ;3\r\n"
    body = text.encode("windows-1252")
    found = preview(client, body)
    assert (found["format"], found["charset"], found["delimiter"]) == ("csv", "windows-1252", ";")
    assert [(c["name"], c["type"], c["roles"]) for c in found["columns"]] == [
        ("Kommentar", "string", ["text"]),
        ("is_toxic", "integer", ["label"]),
        ("Nr", "integer", []),
    ]
    assert found["parameters"] == {"text": "Kommentar", "label": "is_toxic", "charset": "windows-1252"}
    assert found["label_values"] == [{"value": n, "rows": 1, "label": None} for n in ("0", "1", "7")]
    found = preview(client, body, label_map="0:non_toxic,1:toxic")
    assert found["proposed"] == ["charset", "label", "text"]
    assert [row["submission"] for row in found["rows"]] == [
        {"text": "Schöne Grüße an alle Bürger", "label": "non_toxic"},
        {"text": "Du Depp, du blöder", "label": "toxic"},
    ]
    [reject] = found["rejects"]
    assert (reject["row"], reject["fields"]) == (3, {"Kommentar": "x", "is_toxic": " 7 ", "Nr": "3"})
    [group] = found["errors"]
    assert (group["code"], group["count"], group["rows"]) == ("unknown_label", 1, [3])
    assert (found["received"], found["rejected"], found["complete"], found["problem"]) == (3, 1, True, None)
    assert connection.execute("select count(*) from texts").fetchone() == (0,)
    assert client.get("/imports").json()["items"] == []
    headers = {"Content-Type": found["media_type"]}
    path = client.post("/imports", params=found["parameters"], content=body, headers=headers).headers["location"]
    assert ended(client, path)["accepted"] == 2


@pytest.mark.parametrize("compressed", [False, True])
def test_of_a_long_body_the_first_rows_are_read(client: httpx.Client, compressed: bool) -> None:
    lines = b"".join(b'{"text": "%d", "idx": %d}\n' % (n, n) for n in range(300_000))
    body = gzip.compress(lines) if compressed else lines
    found = preview(client, body, NDJSON)
    assert (found["received"], found["rejected"], found["complete"]) == (2000, 0, False)
    assert found["content_encoding"] == ("gzip" if compressed else "identity")
    assert found["parameters"] == {"metadata": "none"}
    assert len(found["rows"]) == 20


def test_a_row_that_is_cut_is_not_told_as_wrong(client: httpx.Client) -> None:
    row = '"a ' + "x" * 60_000 + '",1\n'
    found = preview(client, b"text,n\n" + row.encode() * 20)
    assert (found["received"], found["rejected"], found["complete"]) == (17, 0, False)


def test_a_format_is_told_by_its_first_bytes(client: httpx.Client) -> None:
    file = io.BytesIO()
    parquet.write_table(pa.table({"comment": ["a"], "tags": [["x"]]}), file)
    found = preview(client, file.getvalue())
    assert (found["format"], found["media_type"]) == ("parquet", PARQUET["Content-Type"])
    assert [(c["name"], c["type"], c["roles"]) for c in found["columns"]] == [
        ("comment", "string", ["text"]),
        ("tags", "list", []),
    ]
    found = preview(client, write_xlsx([["text"], ["a"]]))
    assert (found["format"], [row["submission"] for row in found["rows"]]) == ("xlsx", [{"text": "a"}])


def test_a_column_that_cannot_be_read_does_not_hide_the_others(client: httpx.Client) -> None:
    file = io.BytesIO()
    endless = pa.array([2**31 - 1, 2**31 - 1], pa.int32()).cast(pa.date32())
    parquet.write_table(pa.table({"tweet": ["a b", "c d"], "until": endless}), file)
    found = preview(client, file.getvalue(), PARQUET)
    assert [(c["name"], c["samples"], c["roles"]) for c in found["columns"]] == [
        ("tweet", ["a b", "c d"], ["text"]),
        ("until", [], []),
    ]
    assert (found["received"], found["rejected"]) == (2, 0)


def test_columns_that_do_not_fit_are_a_problem_of_the_import(client: httpx.Client) -> None:
    found = preview(client, b"n,m\n1,2\n")
    assert found["problem"]["code"] == "unknown_column"
    assert 'There is no column "text".' in found["problem"]["detail"]
    assert [c["name"] for c in found["columns"]] == ["n", "m"]


@pytest.mark.parametrize(
    ("headers", "body", "status", "code"),
    [
        ({"Content-Type": "text/plain"}, b"x", 415, "unsupported_media_type"),
        (CSV, b"", 400, "malformed_csv"),
        (PARQUET, b"nothing", 400, "malformed_parquet"),
        (PARQUET, b"PAR1" + b"x" * 17 * 2**20, 413, "preview_too_large"),
        (CSV | {"Content-Encoding": "gzip"}, b"text\nx\n", 400, "malformed_encoding"),
    ],
)
def test_what_cannot_be_read_is_a_problem(
    client: httpx.Client, headers: dict[str, str], body: bytes, status: int, code: str
) -> None:
    answer = client.post("/imports/preview", content=body, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (status, code)


def test_identical_errors_are_told_once(client: httpx.Client) -> None:
    body = b"".join(json.dumps({"text": str(n), "label": "rude"}).encode() + b"\n" for n in range(20))
    found = preview(client, body, NDJSON)
    assert [(g["count"], g["rows"]) for g in found["errors"]] == [(20, [1, 2, 3, 4, 5])]


def test_a_bomb_does_no_harm(client: httpx.Client) -> None:
    body = gzip.compress(b"text\n" + b"x" * 200_000_000)
    answer = client.post("/imports/preview", content=body, headers=CSV | {"Content-Encoding": "gzip"})
    assert answer.status_code in {200, 413}
    assert client.post("/texts", json={"text": "still here"}).status_code == 201
