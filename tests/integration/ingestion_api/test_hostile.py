"""Hostile requests are refused with a clear problem, nothing is half stored, and the service continues."""

import gzip
import io
import json
import re
import socket
import time
from collections.abc import Iterator
from http.client import HTTPResponse
from typing import Any
from urllib.parse import urlsplit

import httpx
import psycopg
import pyarrow as pa
import pytest
from backports import zstd
from pyarrow import parquet

JSON = {"Content-Type": "application/json"}
DEEP = "[" * 50_000 + "]" * 50_000
DIGITS = "1" * 5000

# As one JSON object; the code is that of the first error of a single text, and of the row in a bulk body.
BAD_OBJECTS = {
    "NUL": (rb'{"text": "a\u0000b"}', "nul_character"),
    "NUL in metadata": (rb'{"text": "a", "metadata": {"k": "\u0000"}}', "nul_character"),
    "NUL in a metadata name": (rb'{"text": "a", "metadata": {"\u0000": 1}}', "nul_character"),
    "a raw NUL": (b'{"text": "a\0b"}', "malformed_json"),
    "a high surrogate alone": (rb'{"text": "\ud83d"}', "malformed_json"),
    "a low surrogate alone": (rb'{"text": "\ude00"}', "malformed_json"),
    "surrogates as UTF-8": (b'{"text": "\xed\xa0\xbd"}', "malformed_json"),
    "overlong UTF-8": (b'{"text": "\xc0\x80"}', "malformed_json"),
    "UTF-16": ('{"text": "a"}'.encode("utf-16"), "malformed_json"),
    "Latin-1": ('{"text": "ä"}'.encode("latin-1"), "malformed_json"),
    "NaN": (b'{"text": "a", "score": NaN}', None),
    "Infinity": (b'{"text": "a", "score": Infinity}', None),
    "-Infinity in metadata": (b'{"text": "a", "metadata": {"k": -Infinity}}', None),
    "a number that overflows": (b'{"text": "a", "metadata": {"k": 1e999}}', "metadata_value"),
    "5000 digits": (f'{{"text": "a", "metadata": {{"k": {DIGITS}}}}}'.encode(), None),
    "5000 digits as score": (f'{{"text": "a", "score": {DIGITS}}}'.encode(), None),
    "65 bits": (b'{"text": "a", "metadata": {"k": 18446744073709551616}}', "metadata_value"),
    "deep nesting": (f'{{"text": "a", "metadata": {{"k": {DEEP}}}}}'.encode(), "malformed_json"),
    "nested metadata": (b'{"text": "a", "metadata": {"k": {"l": 1}}}', "metadata_value"),
    "unknown field": (b'{"text": "a", "lable": "toxic"}', "extra_forbidden"),
    "field in another case": (b'{"Text": "a"}', "missing"),
    "misspelt label": (b'{"text": "a", "label": "toxc"}', "unknown_label"),
    "label in another case": (b'{"text": "a", "label": "Toxic"}', "unknown_label"),
    "unknown dataset": (b'{"text": "a", "dataset": "toxicity "}', "unknown_dataset"),
    "score as text": (b'{"text": "a", "score": "0.5"}', "float_type"),
    "score as truth": (b'{"text": "a", "score": true}', "float_type"),
    "score above one": (b'{"text": "a", "score": 1.0000001}', "less_than_equal"),
    "text of a number": (b'{"text": 1}', "string_type"),
    "text of white space": ('{"text": "\u3000\\t\u2028"}'.encode(), "empty_text"),
    "text of invisible characters": ('{"text": "\u200b\ufeff\u3164\u2800"}'.encode(), "empty_text"),
    "an array": (b'["a"]', None),
    "a string": (b'"a"', None),
    "null": (b"null", None),
    "a comment": (b'{"text": "a"} // b', "malformed_json"),
    "a comma too many": (b'{"text": "a",}', "malformed_json"),
    "single quotes": (b"{'text': 'a'}", "malformed_json"),
}


@pytest.fixture
def stored(client: httpx.Client, connection: psycopg.Connection) -> Iterator[set[str]]:
    """What the test expects to be stored; at its end the service must still take texts, and hold no others."""
    expected: set[str] = set()
    yield expected
    assert client.post("/texts", json={"text": "still here"}).status_code == 201
    rows = connection.execute("select text from texts").fetchall()
    assert {text for (text,) in rows} == expected | {"still here"}


def _assert_problem(answer: httpx.Response, *statuses: int) -> None:
    assert answer.status_code in statuses, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["status"] == answer.status_code


@pytest.mark.usefixtures("stored")
@pytest.mark.parametrize("case", BAD_OBJECTS)
def test_a_bad_single_text(client: httpx.Client, case: str) -> None:
    body, code = BAD_OBJECTS[case]
    answer = client.post("/texts", content=body, headers=JSON)
    _assert_problem(answer, 400, 422)
    codes = {answer.json()["code"], *(error["code"] for error in answer.json().get("errors", []))}
    assert code is None or code in codes


@pytest.mark.parametrize("kind", ["application/x-ndjson", "application/json"])
@pytest.mark.parametrize("case", BAD_OBJECTS)
def test_a_bad_object_costs_only_itself(client: httpx.Client, stored: set[str], case: str, kind: str) -> None:
    body, code = BAD_OBJECTS[case]
    rows = [b'{"text": "before"}', body, b'{"text": "behind"}']
    content = b"\n".join(rows) if kind == "application/x-ndjson" else b"[" + b",".join(rows) + b"]"
    answer = client.post("/texts/bulk", content=content, headers={"Content-Type": kind})
    assert answer.status_code == 200, answer.text
    result = answer.json()
    stored |= {"before", "behind"}
    assert (result["received"], result["accepted"], result["rejected"]) == (3, 2, 1)
    (error,) = result["errors"]
    assert error["row"] == 2
    assert code is None or error["code"] == code


BAD_CSV_ROWS = {
    "NUL": (b"a\0b,,", "nul_character"),
    "bad UTF-8": (b"\xff,,", "malformed_utf8"),
    "UTF-16": ("a".encode("utf-16") + b",,", "malformed_utf8"),
    "too few cells": (b"a,toxic", "wrong_cell_count"),
    "too many cells": (b"a,toxic,,", "wrong_cell_count"),
    "misspelt label": (b"a,toxc,", "unknown_label"),
    "no text": (b",toxic,", "empty_text"),
    "NaN": (b"a,,nan", "finite_number"),
    "infinity": (b"a,,inf", "finite_number"),
    "overflow": (b"a,,1e999", "finite_number"),
    "5000 digits": (f"a,,{DIGITS}".encode(), "finite_number"),
    "a word for a score": (b"a,,high", "float_parsing"),
}


@pytest.mark.parametrize("case", BAD_CSV_ROWS)
def test_a_bad_csv_row_costs_only_itself(client: httpx.Client, stored: set[str], case: str) -> None:
    row, code = BAD_CSV_ROWS[case]
    content = b'\xef\xbb\xbftext,label,score\r\n"be\r\nfore",,\r\n' + row + b"\r\nbehind,,\r\n"
    result = client.post("/texts/bulk", content=content, headers={"Content-Type": "text/csv"}).json()
    stored |= {"be\r\nfore", "behind"}
    assert (result["received"], result["accepted"], result["rejected"]) == (3, 2, 1)
    assert [(error["row"], error["code"]) for error in result["errors"]] == [(2, code)]


BAD_PARQUET_ROWS: dict[str, tuple[dict[str, Any], str]] = {
    "NUL": ({"text": "a\0b"}, "nul_character"),
    "NaN": ({"text": "a", "score": float("nan")}, "finite_number"),
    "infinity": ({"text": "a", "score": float("inf")}, "finite_number"),
    "misspelt label": ({"text": "a", "label": "toxc"}, "unknown_label"),
    "no text": ({"text": None, "label": "toxic"}, "empty_text"),
}


@pytest.mark.parametrize("case", BAD_PARQUET_ROWS)
def test_a_bad_parquet_row_costs_only_itself(client: httpx.Client, stored: set[str], case: str) -> None:
    row, code = BAD_PARQUET_ROWS[case]
    rows: list[dict[str, Any]] = [{"text": "before", "label": None, "score": None}, row, {"text": "behind"}]
    headers = {"Content-Type": "application/vnd.apache.parquet"}
    result = client.post("/texts/bulk", content=_parquet(rows), headers=headers).json()
    stored |= {"before", "behind"}
    assert [(error["row"], error["code"]) for error in result["errors"]] == [(2, code)]


def _parquet(rows: list[dict[str, Any]]) -> bytes:
    file = io.BytesIO()
    columns = pa.schema({"text": pa.string(), "label": pa.string(), "score": pa.float64()})
    parquet.write_table(pa.Table.from_pylist(rows, columns), file)
    return file.getvalue()


PLAIN = b'{"text": "a"}\n' * 50
BAD_BODIES = {
    "truncated gzip": (gzip.compress(PLAIN)[:-9], "gzip", 400),
    "gzip with a wrong sum": (gzip.compress(PLAIN)[:-8] + b"\0" * 8, "gzip", 400),
    "garbage behind gzip": (gzip.compress(PLAIN) + b"garbage", "gzip", 400),
    "gzip that is none": (PLAIN, "gzip", 400),
    "zstd that is none": (PLAIN, "zstd", 400),
    "truncated zstd": (zstd.compress(PLAIN)[:-3], "zstd", 400),
    "a gzip bomb": (gzip.compress(b" " * 150_000_000), "gzip", 413),
    "gzip in gzip": (gzip.compress(gzip.compress(PLAIN)), "gzip, gzip", 415),
    "deflate": (PLAIN, "deflate", 415),
    "brotli": (PLAIN, "br", 415),
    "a coding nobody knows": (PLAIN, "\xff", 415),
}


@pytest.mark.parametrize("case", BAD_BODIES)
def test_a_bad_encoding(client: httpx.Client, stored: set[str], case: str) -> None:
    body, encoding, status = BAD_BODIES[case]
    headers: list[tuple[bytes, bytes]] = [
        (b"Content-Type", b"application/x-ndjson"),
        (b"Content-Encoding", encoding.encode("latin-1")),
    ]
    answer = client.post("/texts/bulk", content=body, headers=headers)
    if answer.status_code != 200:
        _assert_problem(answer, status)
    assert answer.json().get("accepted", 0) in {0, 1}
    stored |= {"a"} if answer.json().get("accepted") else set()
    assert answer.status_code == status


@pytest.mark.usefixtures("stored")
@pytest.mark.parametrize("encoding", ["gzip", "zstd", "br", "gzip, gzip"])
def test_a_single_text_is_not_compressed(client: httpx.Client, encoding: str) -> None:
    _assert_problem(client.post("/texts", content=PLAIN, headers=JSON | {"Content-Encoding": encoding}), 415)


@pytest.mark.usefixtures("stored")
@pytest.mark.parametrize(
    "kind",
    [
        "",
        "application",
        "text/plain",
        "application/problem+json",
        "multipart/form-data; boundary=x",
        "application/x-www-form-urlencoded",
        "application/json; charset=utf-16",
        "application/json; charset=iso-8859-1",
        'application/json; charset="cp1252"',
        "application/json, text/csv",
    ],
)
@pytest.mark.parametrize("path", ["/texts", "/texts/bulk"])
def test_a_wrong_content_type(client: httpx.Client, path: str, kind: str) -> None:
    _assert_problem(client.post(path, content=b'{"text": "a"}', headers={"Content-Type": kind}), 415)


@pytest.mark.parametrize("charset", ["utf-8", "UTF8", '"utf-8"', "us-ascii"])
def test_a_charset_that_is_utf8(client: httpx.Client, stored: set[str], charset: str) -> None:
    headers = {"Content-Type": f"Application/JSON; charset={charset}"}
    assert client.post("/texts", content=b'{"text": "a"}', headers=headers).status_code == 201
    stored.add("a")


@pytest.mark.parametrize("header", ["X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override"])
def test_a_method_is_not_overridden(client: httpx.Client, stored: set[str], header: str) -> None:
    assert client.post("/texts", json={"text": "a"}, headers={header: "DELETE"}).status_code == 201
    assert client.get("/queue", headers={header: "POST"}).json()["pending"] == 1
    stored.add("a")


@pytest.mark.usefixtures("stored")
@pytest.mark.parametrize("path", [f"/texts/{'a' * 60_000}", f"/queue?dataset={'a' * 60_000}", f"/{'a/' * 30_000}"])
def test_a_very_long_address(client: httpx.Client, path: str) -> None:
    _assert_problem(client.get(path), 404, 422)


@pytest.mark.usefixtures("stored")
@pytest.mark.parametrize("path", ["/texts/%ff", "/texts/%2e%2e%2fqueue", "/texts/..%2f", "/texts//", "/texts/"])
def test_an_odd_path(client: httpx.Client, path: str) -> None:
    _assert_problem(client.get(path), 404, 422)


HEAD = b"POST /texts HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json\r\n"
BODY = b'{"text": "smuggled"}'
RAW = {
    "more Content-Length than body": HEAD + b"Content-Length: 99\r\n\r\n" + BODY,
    "less Content-Length than body": HEAD + b"Content-Length: 9\r\n\r\n" + BODY,
    "two Content-Lengths": HEAD + b"Content-Length: 20\r\nContent-Length: 2\r\n\r\n" + BODY,
    "a negative Content-Length": HEAD + b"Content-Length: -1\r\n\r\n" + BODY,
    "Content-Length and chunks": HEAD + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + BODY,
    "chunks that are none": HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + BODY,
    "a chunk cut short": HEAD + b"Transfer-Encoding: chunked\r\n\r\n14\r\n" + BODY[:9],
    "an unknown transfer coding": HEAD + b"Transfer-Encoding: chunked, gzip\r\n\r\n" + BODY,
    "no HTTP": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + BODY,
    "an unknown method": HEAD.replace(b"POST", b"STEAL") + b"Content-Length: 20\r\n\r\n" + BODY,
}


@pytest.mark.usefixtures("stored")
@pytest.mark.parametrize("case", RAW)
def test_a_broken_frame_stores_nothing(client: httpx.Client, case: str) -> None:
    """Most of these are refused below the application, which no request has reached."""
    answer = _send(client, RAW[case])
    assert answer == b"" or answer.startswith((b"HTTP/1.1 400", b"HTTP/1.1 405"))


def test_garbage_behind_the_last_chunk_is_refused(client: httpx.Client, stored: set[str]) -> None:
    """uvicorn closes the connection when it meets the garbage, whether or not the text was answered by then."""
    chunk = b'd\r\n{"text": "a"}\r\n0\r\n\r\n'
    answer = _send(client, HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + chunk + b"garbage\r\n\r\n")
    assert answer == b"" or answer.startswith((b"HTTP/1.1 201", b"HTTP/1.1 400"))
    assert client.post("/texts", json={"text": "a"}).status_code in {200, 201}
    stored.add("a")


@pytest.mark.usefixtures("stored")
def test_a_flood_of_headers_does_no_harm(client: httpx.Client) -> None:
    flood = {f"X-{n}": "x" * 100 for n in range(2000)}
    _assert_problem(client.post("/texts", json={"text": "a"}, headers=flood), 431)


def _send(client: httpx.Client, request: bytes) -> bytes:
    """Send these bytes as they are, and return all that comes back."""
    address = ("127.0.0.1", urlsplit(str(client.base_url)).port or 0)
    with socket.create_connection(address, timeout=30) as raw:
        raw.sendall(request)
        raw.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: raw.recv(65536), b""))


def test_duplicate_keys_take_the_last_value(client: httpx.Client, stored: set[str]) -> None:
    body = b'{"text": "first", "text": "second"}'
    for kind, content in (("application/x-ndjson", body), ("application/json", b"[" + body + b"]")):
        assert client.post("/texts/bulk", content=content, headers={"Content-Type": kind}).status_code == 200
    assert client.post("/texts", content=body, headers=JSON).json()["duplicate"]
    stored.add("second")


def test_a_body_of_one_endless_row_is_refused(client: httpx.Client, stored: set[str]) -> None:
    row = json.dumps({"text": "x" * 3_000_000}).encode()
    lines = client.post(
        "/texts/bulk", content=row + b'\n{"text": "a"}', headers={"Content-Type": "application/x-ndjson"}
    )
    assert [error["code"] for error in lines.json()["errors"]] == ["row_too_large"]
    stored.add("a")
    _assert_problem(client.post("/texts/bulk", content=b"[" + row + b"]", headers=JSON), 413)
    _assert_problem(client.post("/texts", content=row, headers=JSON), 413)


@pytest.mark.usefixtures("stored")
@pytest.mark.parametrize("method_and_path", ["GET /queue", "POST /texts", "POST /texts/bulk"])
@pytest.mark.parametrize(
    ("query", "status", "code"),
    [("source=M%FCnchen", 400, "malformed_query"), ("source=a&source=b", 422, "repeated")],
)
def test_a_query_string_is_not_repaired(
    client: httpx.Client, method_and_path: str, query: str, status: int, code: str
) -> None:
    method, path = method_and_path.split()
    answer = client.request(method, f"{path}?{query}", headers=JSON, content=b'{"text": "a"}')
    problem = answer.json()
    assert (answer.status_code, problem.get("errors", [problem])[0]["code"]) == (status, code)


EXPECTING = HEAD.replace(b"Connection: close\r\n", b"Expect: 100-continue\r\n")


@pytest.mark.usefixtures("stored")
@pytest.mark.parametrize(
    ("head", "status"),
    [
        (EXPECTING + b"Content-Length: 2000000\r\n\r\n", b"413"),
        (EXPECTING.replace(b"/json", b"/pdf") + b"Content-Length: 20\r\n\r\n", b"415"),
        (EXPECTING.replace(b"/texts", b"/none") + b"Content-Length: 20\r\n\r\n", b"404"),
    ],
)
def test_what_is_refused_by_its_head_gets_no_100(client: httpx.Client, head: bytes, status: bytes) -> None:
    """The client never sends the body, so the connection must close: the next request would be read as one."""
    answer = _send(client, head + b"GET /queue HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 " + status)
    assert answer.count(b"HTTP/1.1 ") == 1
    assert b"\r\nconnection: close\r\n" in answer


def _read_status(raw: socket.socket) -> int:
    response = HTTPResponse(raw)
    response.begin()
    response.read()
    return response.status


def test_a_client_that_expects_100_gets_it(client: httpx.Client, stored: set[str]) -> None:
    with socket.create_connection(("127.0.0.1", urlsplit(str(client.base_url)).port or 0), timeout=30) as raw:
        raw.sendall(EXPECTING + b"Content-Length: 15\r\n\r\n")
        assert raw.recv(65536) == b"HTTP/1.1 100 Continue\r\n\r\n"
        raw.sendall(b'{"text": "abc"}')
        assert _read_status(raw) == 201
        raw.sendall(b"GET /queue HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        assert _read_status(raw) == 200
    stored.add("abc")


@pytest.mark.usefixtures("stored")
@pytest.mark.parametrize(
    "parts", [["GET /texts/ä HTTP/1.1\r\nHost: localhost\r\n\r\n"], ["GET /que", "ue?source=ä"]]
)
def test_a_raw_address_is_to_be_encoded(client: httpx.Client, parts: list[str]) -> None:
    with socket.create_connection(("127.0.0.1", urlsplit(str(client.base_url)).port or 0), timeout=30) as raw:
        for part in parts:
            time.sleep(0.2)
            raw.sendall(part.encode())
        answer = b"".join(iter(lambda: raw.recv(65536), b"")).decode()
    assert answer.startswith("HTTP/1.1 400")
    assert "Percent-encode the address" in answer
    assert re.search(r"\r\nx-request-id: [0-9a-f]{32}\r\n", answer)


def test_a_refusal_below_the_application_has_the_request_id_of_its_client(client: httpx.Client) -> None:
    answer = _send(client, HEAD + b"X-Request-ID: abc-1\r\nTransfer-Encoding: chunked\r\n\r\nnone")
    assert b"\r\nx-request-id: abc-1\r\n" in answer
