"""POST /imports and what follows, on a real Postgres."""

import gzip
import json
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import httpx
import psycopg
import pyarrow as pa
import pytest
from backports import zstd
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from tests.integration.ingestion_api.importing import (
    NDJSON,
    append,
    counts,
    ended,
    lines,
    open_import,
    stored_bytes,
)
from tests.waiting import wait_for

CSV = {"Content-Type": "text/csv"}
PARQUET = {"Content-Type": "application/vnd.apache.parquet"}


def test_a_whole_body_is_stored_and_then_its_rows(client: httpx.Client, connection: psycopg.Connection) -> None:
    body = b'{"text": "one"}\n\n{"text": "two", "label": "toxc"}\nnope\n{"text": "one"}\n'
    answer = client.post("/imports?source=file", content=body, headers=NDJSON)
    assert answer.status_code == 202
    headers, job = answer.headers, answer.json()
    assert (headers["upload-offset"], headers["upload-complete"]) == (str(len(body)), "?1")
    assert headers["location"] == f"/imports/{job['id']}"
    assert job["upload"] == {"offset": len(body), "length": len(body), "complete": True}
    result = ended(client, headers["location"])
    assert (result["state"], counts(result)) == ("done", (4, 1, 1, 2))
    assert [(e["row"], e["code"]) for e in result["errors"]] == [(3, "unknown_label"), (4, "malformed_json")]
    progress = result["progress"]
    assert (progress["rows"], progress["bytes"], progress["bytes_total"]) == (5, len(body), len(body))
    assert progress["rows_per_second"] > 0
    assert connection.execute("select text, source from texts").fetchall() == [("one", "file")]
    wait_for(lambda: connection.execute("select count(*) from import_chunks").fetchone() == (0,))


def test_rejected_rows_come_with_what_was_read_of_them(client: httpx.Client) -> None:
    rows = ['{"text": "a\\u0000", "label": "tox\\u0000c"}', "nope", '{"text": 1, "metadata": {"é": null}}', "[1]"]
    path = client.post("/imports", content="\n".join(rows), headers=NDJSON).headers["location"]
    assert ended(client, path)["rejected"] == 4
    answer = client.get(f"{path}/rejects")
    assert answer.headers["content-type"] == "application/x-ndjson"
    rejects = [json.loads(line) for line in answer.text.splitlines()]
    assert [reject["row"] for reject in rejects] == [1, 2, 3, 4]
    assert [reject["fields"] for reject in rejects] == [
        {"text": "a\0", "label": "tox\0c"},
        None,
        {"text": 1, "metadata": {"é": None}},
        [1],
    ]
    assert all(reject["code"] and reject["detail"] for reject in rejects)


def test_rejected_rows_are_kept_as_sent_and_may_be_corrected_and_sent_again(
    client: httpx.Client, connection: psycopg.Connection
) -> None:
    """Each of the three ways in which a JSON row is read; the second is the usual one."""
    sent = [
        {"text": "one", "label": "Toxic", "score": 7},
        {"text": "two", "label": "Toxc", "metadata": {"n": 1.5, "b": True, "s": "é"}},
        {"text": "three", "label": "Toxc", "other": 2**70},
    ]
    query = "/imports?source=file&label_map=Toxic:toxic"
    path = client.post(query, content="\n".join(map(json.dumps, sent)), headers=NDJSON).headers["location"]
    assert ended(client, path)["rejected"] == 3
    fields = [json.loads(line)["fields"] for line in client.get(f"{path}/rejects").text.splitlines()]
    assert fields == sent
    corrected = [{"text": row["text"], "label": "Toxic", "metadata": row.get("metadata")} for row in fields]
    path = client.post(query, content="\n".join(map(json.dumps, corrected)), headers=NDJSON).headers["location"]
    assert counts(ended(client, path)) == (3, 3, 0, 0)
    rows = connection.execute(
        "select text, claimed_label, source, metadata from texts order by sequence"
    ).fetchall()
    assert rows == [
        ("one", "toxic", "file", {}),
        ("two", "toxic", "file", {"n": 1.5, "b": True, "s": "é"}),
        ("three", "toxic", "file", {}),
    ]


@pytest.mark.parametrize("codec", ["latin-1", "utf-16-le", "utf-16"])
def test_a_problem_that_quotes_the_body_harms_nobody(client: httpx.Client, codec: str) -> None:
    body = "Schlüssel,Größe\n1,2\n".encode(codec)
    path = client.post("/imports", content=body, headers=CSV).headers["location"]
    result = ended(client, path)
    assert (result["state"], result["problem"]["status"] in {400, 422}) == ("failed", True)
    assert client.get("/imports").status_code == 200


def test_a_problem_that_an_older_release_has_stored_harms_nobody(
    client: httpx.Client, connection: psycopg.Connection
) -> None:
    path = client.post("/imports", content=b"comment\n", headers=CSV).headers["location"]
    ended(client, path)
    connection.execute(
        """update imports set problem = '{"detail": "Schl\\udcfcssel", "code": "unknown_column"}'"""
    )
    assert client.get(path).json()["problem"]["detail"] == "Schl?ssel"
    assert client.get("/imports").status_code == 200


def test_parameters_are_kept_and_a_charset_with_them(client: httpx.Client, connection: psycopg.Connection) -> None:
    headers = {"Content-Type": "text/csv; charset=windows-1252"}
    body = "id;Text\n7;Schöne Grüße\n".encode("windows-1252")
    path = client.post("/imports?text=Text&external_id=id", content=body, headers=headers).headers["location"]
    result = ended(client, path)
    assert result["media_type"] == "text/csv"
    assert result["parameters"] == {
        "on_error": "skip",
        "text": "Text",
        "external_id": "id",
        "charset": "windows-1252",
    }
    assert connection.execute("select text, external_id from texts").fetchall() == [("Schöne Grüße", "7")]


def test_the_first_of_many_rejects_are_streamed_in_order(client: httpx.Client) -> None:
    path = client.post("/imports", content="x\n" * 12_345, headers=NDJSON).headers["location"]
    result = ended(client, path)
    assert (result["rejected"], result["rejects_kept"], len(result["errors"])) == (12_345, 10_000, 100)
    assert [(group["count"], group["rows"]) for group in result["error_groups"]] == [(10_000, [1, 2, 3, 4, 5])]
    with client.stream("GET", f"{path}/rejects") as answer:
        rows = [json.loads(line)["row"] for line in answer.iter_lines()]
    assert rows == list(range(1, 10_001))


def test_a_body_in_pieces_ends_when_it_is_said(client: httpx.Client) -> None:
    body = lines(3)
    path = open_import(client)
    assert client.get(path).json()["upload"] == {"offset": 0, "length": None, "complete": False}
    first = append(client, path, 0, body[:7], "?0")
    headers = first.headers
    assert (first.status_code, headers["upload-offset"], headers["upload-complete"]) == (204, "7", "?0")
    assert stored_bytes(client, path) == 7
    assert append(client, path, 7, body[7:], "?0").status_code == 204
    assert client.get(path).json()["state"] == "receiving"
    last = append(client, path, len(body), b"", "?1")
    assert (last.status_code, last.headers["upload-complete"]) == (202, "?1")
    again = append(client, path, len(body), b"", "?1")  # the answer was lost, say
    assert (again.status_code, again.json()["id"]) == (202, last.json()["id"])
    assert counts(ended(client, path)) == (3, 3, 0, 0)


def test_a_body_in_pieces_ends_when_its_length_is_reached(client: httpx.Client) -> None:
    body = lines(3)
    made = client.post("/imports", headers=NDJSON | {"Upload-Length": str(len(body))})  # as tus does
    path = made.headers["location"]
    assert (made.status_code, made.headers["upload-complete"]) == (202, "?0")
    assert client.head(path).headers["upload-length"] == str(len(body))
    headers = {"Content-Type": "application/offset+octet-stream", "Upload-Offset": "0"}
    assert client.patch(path, content=body[:20], headers=headers).status_code == 204
    assert client.patch(path, content=body[20:], headers=headers | {"Upload-Offset": "20"}).status_code == 202
    assert counts(ended(client, path)) == (3, 3, 0, 0)


def test_a_wrong_offset_is_told_the_right_one(client: httpx.Client) -> None:
    path = open_import(client)
    append(client, path, 0, b"1234", "?0")
    answer = append(client, path, 3, b"x", "?0")
    problem = answer.json()
    assert (answer.status_code, answer.headers["upload-offset"]) == (409, "4")
    assert (problem["code"], problem["expected-offset"], problem["provided-offset"]) == (
        "upload_offset_mismatch",
        4,
        3,
    )
    assert stored_bytes(client, path) == 4
    assert client.patch(path, content=b"x").json()["errors"][0]["parameter"] == "upload-offset"


def test_of_two_requests_at_once_one_wins(client: httpx.Client) -> None:
    path = open_import(client)
    body = lines(50_000)
    both_are_under_way = threading.Barrier(2)

    def slow_body() -> Iterator[bytes]:
        yield body[:10]
        both_are_under_way.wait()
        yield body[10:]

    def send() -> None:
        with httpx.Client(base_url=client.base_url, timeout=30) as own:
            answers.append(append(own, path, 0, slow_body(), "?1"))

    answers: list[httpx.Response] = []
    threads = [threading.Thread(target=send) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answer.status_code for answer in answers) == [202, 409]
    assert counts(ended(client, path)) == (50_000, 50_000, 0, 0)


def _go_on(client: httpx.Client, path: str, body: bytes) -> int:
    """Send the rest of the body; returns where that began."""
    while True:
        offset = stored_bytes(client, path)
        answer = append(client, path, offset, body[offset:], "?1")
        if answer.status_code == 202:
            return offset
        # Until the cut is noticed, the request that was cut may be the faster one.
        assert answer.json()["code"] == "upload_offset_mismatch"


def test_a_client_that_was_cut_off_goes_on(client: httpx.Client) -> None:
    body = lines(100_000)

    def jobs() -> list[dict[str, Any]]:
        items: list[dict[str, Any]] = httpx.get(f"{client.base_url}/imports?state=receiving").json()["items"]
        return items

    def cut_short() -> Iterator[bytes]:
        yield body[:1_500_000]
        wait_for(lambda: any(job["upload"]["offset"] for job in jobs()))
        raise ConnectionError("the client crashed")

    with pytest.raises(ConnectionError):
        client.post("/imports", content=cut_short(), headers=NDJSON)
    (job,) = jobs()
    path = f"/imports/{job['id']}"
    assert _go_on(client, path, body) <= 1_500_000
    assert counts(ended(client, path)) == (100_000, 100_000, 0, 0)


def test_a_cut_request_does_not_end_the_upload(client: httpx.Client) -> None:
    path = open_import(client)
    body = lines(100_000)
    with socket.create_connection(("127.0.0.1", urlsplit(str(client.base_url)).port or 0)) as raw:
        raw.sendall(
            f"PATCH {path} HTTP/1.1\r\nHost: localhost\r\nUpload-Offset: 0\r\nUpload-Complete: ?1\r\n".encode()
        )
        raw.sendall(f"Content-Length: {len(body)}\r\n\r\n".encode() + body[:1_500_000])
        wait_for(lambda: stored_bytes(client, path) > 0)
    assert 0 < _go_on(client, path, body) <= 1_500_000
    assert counts(ended(client, path)) == (100_000, 100_000, 0, 0)


@pytest.mark.parametrize(
    ("headers", "sent", "complete", "status", "code"),
    [
        ({"Upload-Length": "3"}, b"1234", None, 400, "inconsistent_upload_length"),
        ({"Upload-Length": "3"}, iter([b"12", b"34"]), None, 400, "inconsistent_upload_length"),
        ({"Upload-Length": "5"}, b"1234", "?1", 400, "inconsistent_upload_length"),
        ({"Upload-Length": "5"}, iter([b"1234"]), "?1", 400, "inconsistent_upload_length"),
        ({"Upload-Length": str(2**40)}, b"", "?0", 422, "invalid_fields"),
        ({"Upload-Length": "-1"}, b"", "?0", 422, "invalid_fields"),
        ({"Upload-Length": "9" * 30}, b"", "?0", 422, "invalid_fields"),
        ({}, b"", "yes", 422, "invalid_fields"),
    ],
)
def test_contradictions_about_the_length_are_refused(
    client: httpx.Client, headers: dict[str, str], sent: Any, complete: str | None, status: int, code: str
) -> None:
    if complete:
        headers = headers | {"Upload-Complete": complete}
    answer = client.post("/imports", content=sent, headers=NDJSON | headers)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert client.get("/imports?state=waiting").json()["items"] == []


@pytest.mark.parametrize(
    ("query", "headers", "status", "code"),
    [
        ("", {"Content-Type": "text/plain"}, 415, "unsupported_media_type"),
        ("", NDJSON | {"Content-Encoding": "br"}, 415, "unsupported_media_type"),
        ("?txt=body", CSV, 422, "invalid_fields"),
        ("?label_map=x", CSV, 422, "invalid_fields"),
        ("?dataset=none", CSV, 422, "invalid_fields"),
    ],
)
def test_what_can_be_known_before_is_refused_at_once(
    client: httpx.Client, query: str, headers: dict[str, str], status: int, code: str
) -> None:
    answer = client.post(f"/imports{query}", content=b"x", headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert client.get("/imports").json() == {"items": [], "next_cursor": None}


@pytest.mark.parametrize(
    ("headers", "body", "code", "stored"),
    [
        (NDJSON | {"Content-Encoding": "gzip"}, gzip.compress(lines(20_000))[:-5], "malformed_encoding", True),
        (NDJSON | {"Content-Encoding": "zstd"}, zstd.compress(b" " * 200_000_000), "body_is_a_bomb", False),
        (CSV, b'text,"x\n', "malformed_csv", False),
        (CSV, b"te\0xt\nx\n", "unknown_column", False),
        (CSV, b"", "malformed_csv", False),
        (PARQUET, b"PAR1", "malformed_parquet", False),
        ({"Content-Type": "application/json"}, b'[{"text": "a"}, {"text"', "malformed_json", True),
    ],
)
def test_a_body_that_cannot_be_read_on_fails_the_import(
    client: httpx.Client, headers: dict[str, str], body: bytes, code: str, stored: bool
) -> None:
    path = client.post("/imports", content=body, headers=headers).headers["location"]
    result = ended(client, path)
    assert (result["state"], result["problem"]["code"]) == ("failed", code)
    assert 400 <= result["problem"]["status"] < 500
    assert result["accepted"] == client.get("/queue").json()["pending"]
    assert (result["accepted"] > 0) == stored


def test_abort_stores_all_or_nothing(client: httpx.Client) -> None:
    bad = client.post("/imports?on_error=abort", content=lines(6000) + b"x\n", headers=NDJSON).headers["location"]
    result = ended(client, bad)
    assert (result["state"], result["problem"]["code"], counts(result)) == (
        "failed",
        "rows_rejected",
        (6001, 0, 0, 1),
    )
    assert client.get("/queue").json()["pending"] == 0
    assert client.get(f"{bad}/rejects").json()["row"] == 6001
    good = client.post("/imports?on_error=abort", content=lines(6000), headers=NDJSON).headers["location"]
    assert counts(ended(client, good)) == (6000, 6000, 0, 0)


def test_a_deleted_import_is_gone(client: httpx.Client, connection: psycopg.Connection) -> None:
    path = open_import(client)
    append(client, path, 0, b"1234", "?0")
    assert [client.delete(path).status_code for _ in range(2)] == [204, 404]
    assert client.get(path).status_code == 404
    assert path not in [f"/imports/{item['id']}" for item in client.get("/imports").json()["items"]]
    assert append(client, path, 4, b"x").status_code == 404
    wait_for(lambda: connection.execute("select count(*) from import_chunks").fetchone() == (0,))
    wait_for(lambda: connection.execute("select count(*) from imports").fetchone() == (0,))


def test_a_running_import_can_be_deleted(client: httpx.Client) -> None:
    path = client.post("/imports", content=lines(400_000), headers=NDJSON).headers["location"]
    wait_for(lambda: client.get(path).json()["progress"]["rows"] > 0)
    assert client.delete(path).status_code == 204
    # The next one waits for its turn: what the deleted one was storing is stored or undone by then.
    after = client.post("/imports", content=b"x", headers=NDJSON).headers["location"]
    ended(client, after)
    stored = client.get("/queue").json()["pending"]
    assert 0 < stored < 400_000
    assert client.get("/queue").json()["pending"] == stored


def test_what_has_ended_is_not_changed(client: httpx.Client) -> None:
    path = client.post("/imports", content=lines(1), headers=NDJSON).headers["location"]
    ended(client, path)
    appended = append(client, path, 14, b"x")
    assert (appended.status_code, appended.json()["code"]) == (409, "upload_completed")
    assert appended.headers["upload-complete"] == "?1"


@pytest.mark.parametrize("path", [f"/imports/{uuid4()}", f"/imports/{uuid4()}/rejects"])
def test_an_unknown_import_is_not_found(client: httpx.Client, path: str) -> None:
    assert client.get(path).json()["code"] == "not_found"


def test_an_unknown_import_has_no_offset(client: httpx.Client) -> None:
    path = f"/imports/{uuid4()}"
    assert client.head(path).status_code == client.delete(path).status_code == 404
    assert append(client, path, 0, b"x").status_code == 404


def test_imports_are_listed_newest_first_in_pages(client: httpx.Client) -> None:
    paths = [open_import(client) for _ in range(5)]
    listed: list[str] = []
    page = client.get("/imports?limit=2")
    while True:
        listed += [f"/imports/{item['id']}" for item in page.json()["items"]]
        if page.json()["next_cursor"] is None:
            break
        assert page.headers["link"] == f'</imports?limit=2&cursor={page.json()["next_cursor"]}>; rel="next"'
        page = client.get("/imports", params={"limit": 2, "cursor": page.json()["next_cursor"]})
    assert listed == paths[::-1]
    assert client.get("/imports?state=done").json()["items"] == []
    assert client.get("/imports?state=gone").status_code == 422


def test_parquet_and_csv_are_read_with_their_parameters(client: httpx.Client, tmp_path: Any) -> None:
    parquet.write_table(pa.table({"comment": ["a", "b"], "toxic": ["Y", "?"]}), tmp_path / "x.parquet")
    query = "/imports?text=comment&label=toxic&label_map=Y:toxic"
    body = (tmp_path / "x.parquet").read_bytes()
    for headers, content in ((PARQUET, body), (CSV, b"comment,toxic\na,Y\nb,?\n")):
        path = client.post(query, content=content, headers=headers).headers["location"]
        result = ended(client, path)
        assert (result["received"], result["rejected"]) == (2, 1)
        assert json.loads(client.get(f"{path}/rejects").text)["fields"] == {"comment": "b", "toxic": "?"}


def _cut(body: bytes, sizes: list[int]) -> list[bytes]:
    pieces = []
    for size in sizes:
        pieces.append(body[:size])
        body = body[size:]
    return [*pieces, body]


ROWS = st.lists(st.sampled_from(['{"text": "é one"}', '{"text": 2}', "nope", "", '{"text": "b", "score": 0.5}']))
ENCODINGS: dict[str, Callable[[bytes], bytes]] = {
    "identity": bytes,
    "gzip": gzip.compress,
    "zstd": zstd.compress,
}


@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=ROWS, sizes=st.lists(st.integers(0, 60), max_size=5), encoding=st.sampled_from(sorted(ENCODINGS)))
def test_any_pieces_are_the_same_as_one_bulk_upload(
    client: httpx.Client, connection: psycopg.Connection, rows: list[str], sizes: list[int], encoding: str
) -> None:
    body = ENCODINGS[encoding]("\n".join(rows).encode())
    headers = NDJSON | {"Content-Encoding": encoding}
    connection.execute("truncate texts")
    path = open_import(client, headers=headers)
    offset = 0
    for piece in _cut(body, sizes):
        assert append(client, path, offset, piece, "?0").status_code == 204
        offset += len(piece)
    assert append(client, path, offset, b"", "?1").status_code == 202
    result = ended(client, path)
    texts = connection.execute("select text, score from texts order by sequence").fetchall()
    connection.execute("truncate texts")
    whole = client.post("/texts/bulk", content=body, headers=headers).json()
    assert (result["state"], counts(result), result["errors"]) == ("done", counts(whole), whole["errors"])
    assert connection.execute("select text, score from texts order by sequence").fetchall() == texts
