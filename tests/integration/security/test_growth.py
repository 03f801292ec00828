"""Eight times as much in a header, a parameter or a body takes at most sixteen times as long.

The applications run in this process without a database: all that is measured happens before one is needed.
"""

import asyncio
import gc
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from typing import NamedTuple
from urllib.parse import quote
from uuid import uuid4

import pytest
from pydantic import SecretStr
from starlette.types import ASGIApp, Message

from core.datasets import load_datasets
from core.settings import AccessSettings, ArgillaSettings, DatabaseSettings, DatasetsFileSettings
from core.tracing import read_traceparent
from ingestion_api.main import create_app as create_ingestion
from ingestion_api.settings import IngestionSettings
from serving_api.main import create_app as create_serving
from serving_api.settings import DataSettings, ReplicaSettings, ServingSettings
from serving_api.viewer.split_rows import LIVE as COLUMNS
from serving_api.viewer.where import LENGTH_MAX, NotUnderstood, parse_orderby, parse_where
from uploader.main import create_app as create_uploader
from uploader.settings import Settings

HEAD_BYTES = 60_000  # of the 64 KiB that a head may have
BODY_BYTES = 1_000_000  # of the 1 MiB that a body which is read as a whole may have
TIMES = 8
RUNS = 5
SHORT_SECONDS = 0.005  # what the longest input may take however it grows

Fill = Callable[[int], str]  # makes a value of about so many characters


class Sent(NamedTuple):
    """A request that grows with n."""

    method: str
    path: str
    query: Fill = lambda _: ""
    headers: Callable[[int], list[tuple[str, str]]] = lambda _: []
    body: Callable[[int], bytes] = lambda _: b""
    most: int = HEAD_BYTES


def repeated(part: str, start: str = "", end: str = "") -> Fill:
    return lambda n: start + part * ((n - len(start) - len(end)) // len(part)) + end


FILLS: dict[str, Fill] = {
    "letters": repeated("a"),
    "spaces": repeated(" ", "a", "a"),
    "spaces and tabs": repeated(" \t", "a", ",a"),
    "commas": repeated(","),
    "semicolons": repeated(";"),
    "semicolons in an open quote": repeated(";", 'a/b;"'),
    "quotes": repeated('"'),
    "quotes and commas": repeated('",'),
    "escaped quotes": repeated('\\"', 'a/b;c="'),
    "backslashes": repeated("\\", '"'),
    "open quotes": repeated(';a="', "a/b"),
    "media ranges": repeated("a/b;q=0.1,"),
    "weak tags": repeated("W/"),
    "tags": repeated('W/"a", '),
    "equals": repeated("="),
    "ranges": repeated("0-0,", "bytes="),
    "digits": repeated("9"),
    "dashes": repeated("-"),
    "signatures": repeated("v1,AAAA "),
    "padding": repeated("=", "v1,AAAA"),
    "pairs": repeated("a=b,"),
    "cookies": repeated("a=b; "),
    "charset": repeated("charset ", "application/json; "),
    "charset and spaces": repeated(" ", "application/json; charset=", "x"),
    "dates": repeated("1 Jan 2026 "),
    "parentheses": repeated("(", "Mon, "),
    "parents of paths": repeated("../"),
    "percents": repeated("%25"),
}
HEADERS = (
    "accept",
    "accept-encoding",
    "authorization",
    "baggage",
    "content-encoding",
    "content-type",
    "cookie",
    "host",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-range",
    "last-event-id",
    "origin",
    "prefer",
    "range",
    "traceparent",
    "tracestate",
    "upload-complete",
    "upload-length",
    "upload-offset",
    "webhook-id",
    "webhook-signature",
    "webhook-timestamp",
    "x-forwarded-for",
    "x-request-id",
)
# What reads each header: an endpoint, or all of them.
READERS = {
    "content-encoding": ("POST", "/texts"),
    "content-type": ("POST", "/texts"),
    "if-modified-since": ("GET", "/static-offline-docs/redoc.standalone.js"),
    "if-none-match": ("GET", "/static-offline-docs/redoc.standalone.js"),
    "if-range": ("GET", "/static-offline-docs/redoc.standalone.js"),
    "last-event-id": ("GET", "/changes"),
    "origin": ("POST", "/texts"),
    "range": ("GET", "/static-offline-docs/redoc.standalone.js"),
    "upload-complete": ("POST", "/imports"),
    "upload-length": ("POST", "/imports"),
    "upload-offset": ("PATCH", f"/imports/{uuid4()}"),
    "webhook-id": ("POST", "/webhooks/argilla"),
    "webhook-signature": ("POST", "/webhooks/argilla"),
    "webhook-timestamp": ("POST", "/webhooks/argilla"),
}
PARAMETERS = {
    "/texts": (
        "label",
        "source",
        "annotator",
        "min_agreement",
        "labelled_after",
        "q",
        "cursor",
        "limit",
        "dataset",
    ),
    "/changes": ("since", "wait", "feed"),
    "/filter": ("where", "orderby", "offset", "config", "split"),
    "/search": ("query",),
    "/stats/agreement": ("annotator",),
    "/snapshots": ("cursor",),
    "/imports": ("state", "cursor", "limit"),
    "/queue": ("dataset",),
}
BULK = ("label_map", "metadata", "source", "text", "on_error")


def header_case(name: str, fill: Fill) -> Sent:
    method, path = READERS.get(name, ("GET", "/texts"))
    kind = [] if name == "content-type" else [("content-type", "application/json")]
    if path == "/imports":
        kind = [("content-type", "application/x-ndjson")]
    if path == "/webhooks/argilla":
        kind += [(f"webhook-{one}", "1") for one in ("id", "timestamp", "signature") if f"webhook-{one}" != name]
    return Sent(method, path, headers=lambda n: [*kind, (name, fill(n))])


def uploader_case(name: str, fill: Fill) -> Sent:
    return Sent("GET", "/healthz", headers=lambda n: [(name, fill(n))])


def many_headers(name: str) -> Sent:
    """The same header again and again, or always another one."""
    return Sent("GET", "/texts", headers=lambda n: [(name.format(i), "a") for i in range(n // 12)])


def body_case(method: str, path: str, fill: Fill, most: int = BODY_BYTES) -> Sent:
    kind = [("content-type", "application/json")]
    return Sent(method, path, headers=lambda _: kind, body=lambda n: fill(n).encode(), most=most)


def parameter(name: str, fill: Fill) -> Fill:
    """Return a query string with one parameter; a third of the length, since quoting makes up to three of one."""
    return lambda n: f"{name}={quote(fill(n // 3))}"


def query_case(method: str, path: str, query: Fill) -> Sent:
    return Sent(method, path, query=query, headers=lambda _: [("content-type", "text/csv")])


def path_case(method: str, path: str, fill: Fill) -> Sent:
    """Fill in a path's parameters; by way of a header, since `Sent` has no other place that grows."""
    return Sent(method, path, headers=lambda n: [("x-path", fill(n))])


CASES: dict[str, Sent] = {
    f"{name}: {kind}": header_case(name, fill) for name in HEADERS for kind, fill in FILLS.items()
}
CASES |= {
    f"the uploader's {name}: {kind}": uploader_case(name, fill)
    for name in ("accept", "authorization", "cookie", "host", "x-request-id")
    for kind, fill in FILLS.items()
}
CASES |= {f"many headers: {name}": many_headers(name) for name in ("accept", "x-{}", "if-none-match", "cookie")}
CASES |= {
    f"{path}?{name}: {kind}": query_case("GET", path, parameter(name, fill))
    for path, names in PARAMETERS.items()
    for name in names
    for kind, fill in FILLS.items()
}
CASES |= {
    f"/imports?{name} of the rows: {kind}": query_case("POST", "/imports", parameter(name, fill))
    for name in BULK
    for kind, fill in (FILLS | {"mapped labels": repeated("a:toxic,"), "colons": repeated(":")}).items()
}
CASES |= {
    f"{path}?: {kind}": query_case(method, path, fill)
    for method, path in (("GET", "/texts"), ("GET", "/export.csv"), ("GET", "/rows"), ("POST", "/imports"))
    for kind, fill in {
        "other names": lambda n: "&".join(f"{i:x}=" for i in range(n // 6)),
        "one name": repeated("label=a&"),
        "no names": repeated("&"),
        "no values": repeated("a&"),
        "percents": repeated("%61=%62&"),
        "broken percents": repeated("%"),
        "bad UTF-8": repeated("%ff"),
        "pluses": repeated("+"),
    }.items()
}
CASES |= {
    f"{path}: {kind}": path_case(method, path, fill)
    for method, path in (
        ("GET", "/texts/{}"),
        ("GET", "/snapshots/{}/{}.parquet"),
        ("GET", "/snapshots/{}/diff/{}"),
    )
    for kind, fill in (FILLS | {"suffixes": repeated(".parquet"), "slashes": repeated("/")}).items()
}
BODIES: dict[str, Fill] = {
    "letters": repeated("a", '{"text": "', '", "label": "?"}'),
    "escapes": repeated("\\u00e4", '{"text": "', '", "label": "?"}'),
    "NUL": repeated("\\u0000", '{"text": "', '"}'),
    "surrogates": repeated("\\ud800", '{"text": "', '"}'),
    "spaces": repeated(" ", '{"text": "a", "label": "?"', "}"),
    "combining marks": repeated("\u0327\u0301", '{"text": "a', '", "label": "?"}'),
    "digits": repeated("9", '{"text": "a", "score": ', "}"),
    "digits behind a point": repeated("9", '{"text": "a", "label": "?", "score": 0.', "9}"),
    "brackets": repeated("["),
    "braces": repeated('{"a":'),
    "unknown fields": lambda n: "{" + ",".join(f'"{i:x}":0' for i in range(n // 9)) + "}",
    "metadata": lambda n: '{"text": "a", "metadata": {' + ",".join(f'"{i:x}":0' for i in range(n // 9)) + "}}",
    "one field": lambda n: '{"text": "a"' + ', "label": "?"' * (n // 14) + "}",
    "an array": lambda n: "[" + "0," * (n // 2) + "0]",
    "splits": lambda n: '{"splits": {' + ",".join(f'"{i:x}":0.1' for i in range(n // 11)) + "}}",
    "labels": lambda n: '{"label": [' + '"a",' * (n // 4) + '"a"]}',
    "ids": lambda n: '{"without": [' + ",".join(f'"{uuid4()}"' for _ in range(n // 39)) + "]}",
}
CASES |= {f"POST /texts: {kind}": body_case("POST", "/texts", fill) for kind, fill in BODIES.items()}
CASES |= {
    f"POST /snapshots: {kind}": body_case("POST", "/snapshots", fill, HEAD_BYTES) for kind, fill in BODIES.items()
}
CASES |= {f"rewrite: {kind}": body_case("POST", "/snapshots/a/rewrite", fill) for kind, fill in BODIES.items()}


def parse(parser: Callable[..., object], text: str) -> None:
    with suppress(NotUnderstood):
        parser(text[:LENGTH_MAX], COLUMNS)


CONDITIONS: dict[str, Fill] = {
    "parentheses": repeated("("),
    "closed parentheses": lambda n: "(" * (n // 2) + "score=1" + ")" * (n // 2),
    "not": repeated("not "),
    "and": repeated("score=1 and ", end="score=1"),
    "or": repeated("score=1 or ", end="score=1"),
    "nested or": lambda n: "score=1 or (" * (n // 13) + "score=1" + ")" * (n // 13),
    "in": repeated("1,", "score in (", "1)"),
    "quotes": repeated("'"),
    "names": repeated('"'),
    "wildcards": repeated("%_", "text like '", "'"),
    "digits": repeated("9", "score="),
    "columns": repeated("score,", end="score"),
    "columns in order": repeated("score desc nulls last,", end="score"),
    "spaces": repeated(" ", "score", "=1"),
    "comments": repeated("--"),
    "minus": repeated("-", "score=", "1"),
}
FUNCTIONS: dict[str, tuple[Callable[[str], object], Fill, int]] = {
    **{f"where: {kind}": (lambda t: parse(parse_where, t), fill, LENGTH_MAX) for kind, fill in CONDITIONS.items()},
    **{
        f"orderby: {kind}": (lambda t: parse(parse_orderby, t), fill, LENGTH_MAX)
        for kind, fill in CONDITIONS.items()
    },
    **{f"traceparent: {kind}": (read_traceparent, fill, HEAD_BYTES) for kind, fill in FILLS.items()},
}


@pytest.fixture(scope="module")
def apps(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ASGIApp]:
    database = DatabaseSettings(url=SecretStr("postgresql://nobody@127.0.0.1:1/nothing"))
    access = AccessSettings(require_api_key=False)
    data = DataSettings(data_dir=tmp_path_factory.mktemp("data"))
    ingestion = create_ingestion(IngestionSettings(), database, access, DatasetsFileSettings())
    serving = create_serving(ServingSettings(), ReplicaSettings(), data, database, access, load_datasets(None))
    argilla = ArgillaSettings(api_key=SecretStr("test.key"))
    uploader = create_uploader(
        Settings(database=database, argilla=argilla, datasets=load_datasets(None), access=access)
    )
    return {"ingestion": ingestion, "serving": serving, "uploader": uploader}


def scope_of(sent: Sent, n: int) -> dict[str, object]:
    headers = sent.headers(n)
    filled = [value for name, value in headers if name == "x-path"]
    path = sent.path.replace("{}", filled[0][: n // sent.path.count("{}")]) if filled else sent.path
    names = {name for name, _ in headers}
    own = [] if "host" in names else [("host", "127.0.0.1")]
    return {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": sent.method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": sent.query(n).encode("latin-1", "replace"),
        "root_path": "",
        "headers": [(name.encode(), value.encode("latin-1")) for name, value in own + headers if name != "x-path"],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 80),
    }


async def call(app: ASGIApp, scope: dict[str, object], body: bytes) -> int:
    messages = [{"type": "http.request", "body": body, "more_body": False}]
    statuses: list[int] = []

    async def receive() -> Message:
        return messages.pop() if messages else {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])

    await app(scope, receive, send)
    return statuses[0]


def seconds_of(work: Callable[[], object]) -> float:
    """Return the CPU time of the fastest of some runs."""
    fastest = float("inf")
    for _ in range(RUNS):
        started = time.process_time()
        work()
        fastest = min(fastest, time.process_time() - started)
        if fastest <= SHORT_SECONDS:
            break
    return fastest


def assert_linear(case: str, work_of: Callable[[int], Callable[[], object]], most: int) -> None:
    small, large = work_of(most // TIMES), work_of(most)
    many = seconds_of(large)
    if many > SHORT_SECONDS:
        few = seconds_of(small)
        assert many <= few * TIMES * 2, f"{case}: {few:.5f} s for an eighth of what takes {many:.5f} s"


def api_of(sent: Sent) -> str:
    if sent.path == "/healthz":
        return "uploader"
    is_written = sent.method == "POST" and not sent.path.startswith("/snapshots")
    return "ingestion" if is_written or sent.path.startswith(("/imports", "/queue")) else "serving"


@pytest.fixture
def _no_garbage_collection() -> Iterator[None]:
    """Leave out what the collector does: it walks everything that the tests hold."""
    gc.disable()
    yield
    gc.enable()


GROUPS = sorted({case.rpartition(": ")[0] for case in [*CASES, *FUNCTIONS]})


@pytest.mark.usefixtures("_no_garbage_collection")
@pytest.mark.parametrize("group", GROUPS)
def test_time_grows_with_the_length(apps: dict[str, ASGIApp], group: str) -> None:
    for case, sent in CASES.items():
        if case.rpartition(": ")[0] == group:
            assert_request_is_linear(case, apps[api_of(sent)], sent)
    for case, (parser, fill, most) in FUNCTIONS.items():
        if case.rpartition(": ")[0] == group:
            assert_linear(case, lambda n: partial(parser, fill(n)), most)  # noqa: B023 - called here


def assert_request_is_linear(case: str, app: ASGIApp, sent: Sent) -> None:
    with asyncio.Runner() as runner:

        def work_of(n: int) -> Callable[[], object]:
            body = sent.body(n)

            def work() -> None:
                status = runner.run(call(app, scope_of(sent, n), body))
                assert status < 500 or status == 503, (case, status)  # 503: only now is a database needed

            return work

        assert_linear(case, work_of, sent.most)
