"""Requests that two servers may read in two ways are read in none; names in paths lead nowhere."""

import re

import httpx
import pytest

from core.web.app import content_security_policy
from tests.integration.security.conftest import Guarded, exchange

INNER = b"GET /healthz HTTP/1.1\r\nHost: smuggled\r\nConnection: close\r\n\r\n"
POST = b"POST /texts HTTP/1.1\r\nHost: x\r\n"
SMUGGLED = {
    "both lengths": POST + b"Content-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + INNER,
    "both, the other way round": POST
    + b"Transfer-Encoding: chunked\r\nContent-Length: 6\r\n\r\n0\r\n\r\n"
    + INNER,
    "two lengths": POST + b"Content-Length: 0\r\nContent-Length: %d\r\n\r\n" % len(INNER) + INNER,
    "a list of lengths": POST + b"Content-Length: 0, 6\r\n\r\n" + INNER,
    "a signed length": POST + b"Content-Length: +0\r\n\r\n" + INNER,
    "a coding with a tab": POST + b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n" + INNER,
    "a coding before a space": POST + b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n" + INNER,
    "chunked, but not last": POST + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n" + INNER,
    "a folded header": POST + b"X-A: a\r\n Content-Length: 0\r\n\r\n" + INNER,
    "a header of NUL": POST + b"X-A: \x00\r\nContent-Length: 0\r\n\r\n" + INNER,
    "a chunk size that overflows": POST + b"Transfer-Encoding: chunked\r\n\r\n" + b"f" * 17 + b"\r\n" + INNER,
    "a chunk size of minus one": POST + b"Transfer-Encoding: chunked\r\n\r\n-1\r\n" + INNER,
}


@pytest.mark.parametrize("case", SMUGGLED)
def test_nothing_is_smuggled(guarded: Guarded, case: str) -> None:
    answer = exchange(guarded.ingestion, SMUGGLED[case])
    assert b"HTTP/1.1 200 " not in answer, answer  # what the inner request would get
    assert answer.startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 401 ")), answer
    assert answer.count(b"HTTP/1.1 ") == 1


@pytest.mark.parametrize(
    "name",
    [
        "..%2f..%2f..%2fetc%2fpasswd",
        "%2e%2e",
        "..",
        "%00",
        "a%00.parquet",
        "%2fetc%2fpasswd",
        "file:%2f%2f%2fetc%2fpasswd",
        "s3:%2f%2fbucket",
        "%5c..%5c..",
        "a" * 5000,
        "%ff",
        "~root",
        ".staging",
        "*",
    ],
)
def test_names_of_snapshots_lead_nowhere(guarded: Guarded, name: str) -> None:
    headers = f"Authorization: Bearer {guarded.keys['admin']}\r\nConnection: close\r\nHost: x\r\n\r\n".encode()
    paths = (f"{name}/train.parquet", f"x/{name}.parquet", name, f"{name}/diff/{name}", f"{name}/README.md")
    for path in paths:
        answer = exchange(guarded.serving, b"GET /snapshots/%b HTTP/1.1\r\n%b" % (path.encode(), headers))
        assert re.match(rb"HTTP/1.1 (400|404|422) ", answer), (path, answer[:300])
        assert b"root:" not in answer
    body = {"name": httpx.URL(f"http://x/{name}").path[1:], "splits": {"whole": 1}}
    made = httpx.post(f"{guarded.serving.url}/snapshots", json=body, headers=guarded.headers("snapshot"))
    assert made.status_code in {409, 422}, made.text  # 409: nothing is labelled here


@pytest.mark.parametrize("page", ["/docs", "/redoc", "/docs/oauth2-redirect"])
def test_a_page_runs_only_what_is_its_own(guarded: Guarded, page: str) -> None:
    for program in (guarded.ingestion, guarded.serving):
        answer = httpx.get(program.url + page)
        policy = answer.headers["content-security-policy"]
        assert policy == content_security_policy(answer.content)
        for directive in ("default-src 'none'", "frame-ancestors 'none'", "base-uri 'none'", "connect-src 'self'"):
            assert directive in policy
        (scripts,) = re.findall(r"script-src ([^;]*);", policy)
        assert "unsafe" not in scripts
        inline = re.findall(r"<script>", answer.text)
        assert scripts.count("sha256-") == len(inline)
        for source in re.findall(r"(?:src|href)=\"([^\"]*)\"", answer.text):
            assert source.startswith("/static-offline-docs/"), source  # works offline, and is 'self'
            assert httpx.get(program.url + source).status_code == 200
        assert " on" + "load=" not in answer.text  # no handler that a policy would stop


def test_no_answer_is_taken_for_a_page(guarded: Guarded) -> None:
    key = guarded.headers("admin")
    for path in ("/texts", "/export.csv", "/export.ndjson", "/stats", "/nothing", "/metrics", "/docs"):
        answer = httpx.get(guarded.serving.url + path, headers=key)
        assert answer.headers.get_list("x-content-type-options") == ["nosniff"], path
    assert httpx.get(f"{guarded.ingestion.url}/queue").headers["x-content-type-options"] == "nosniff"
