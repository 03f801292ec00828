"""Makes hostile requests: addresses, parameters, headers and bodies, some valid, some malformed, some huge."""

import gzip
import io
import json
from collections.abc import Callable
from random import Random
from typing import Any
from urllib.parse import quote_from_bytes

import pyarrow as pa
from pyarrow import parquet

# Units that are repeated to make something long: each is the worst case of some parser.
UNITS: list[bytes] = [
    unit.encode()
    for unit in [
        "a",
        "0",
        "-",
        ".",
        ";",
        ",",
        '"',
        "'",
        "\\",
        "/",
        "%",
        "_",
        "%_",
        "(",
        ")",
        "[",
        "{",
        "=",
        "&",
        "%25",
        "%00",
        "%ff",
        "é",
    ]
]
UNITS += [
    unit.encode()
    for unit in ["a,", "a;", "a=b;", 'a="b",', "a/b,", "a:b,", "q=0.1,", "*/*;q=0,", "0-1,", "bytes=0-,"]
]
UNITS += [b"NOT ", b"text=1 OR ", b"'a' ", "\u202e".encode(), "\u0301".encode(), "a\u0301".encode(), b" a", b"\t"]
HEADERS = [
    "Accept",
    "Accept-Encoding",
    "Accept-Language",
    "Authorization",
    "Content-Encoding",
    "Content-Type",
    "Cookie",
    "Forwarded",
    "Host",
    "If-Match",
    "If-Modified-Since",
    "If-None-Match",
    "If-Range",
    "Last-Event-ID",
    "Origin",
    "Prefer",
    "Range",
    "Upload-Complete",
    "Upload-Length",
    "Upload-Offset",
    "X-Request-ID",
    "traceparent",
    "tracestate",
    "baggage",
    "webhook-id",
    "webhook-signature",
    "webhook-timestamp",
]
# Values that pass the first checks, so that a request reaches the code behind them.
VALUES: dict[str, list[bytes]] = {
    "dataset": [b"toxicity"],
    "config": [b"toxicity", b"default"],
    "split": [b"train"],
    "limit": [b"1", b"1000"],
    "length": [b"1", b"100"],
    "offset": [b"0", b"100000"],
    "order": [b"newest", b"oldest", b"relevance"],
    "match": [b"substring", b"words", b"phrase", b"prefix"],
    "q": [b"a", b"the idiots", b"zzzz"],
    "query": [b"a", b"the idiots"],
    "orderby": [b"text DESC", b"label"],
    "wait": [b"0", b"1"],
    "since": [b"0", b"1"],
    "label": [b"toxic", b"label", b"non_toxic"],
    "text": [b"text"],
    "on_error": [b"abort", b"skip"],
    "min_agreement": [b"0.5", b"1"],
}
LIKES = ["%{}%", "{}", "%{}~", "_{}", "{}_"]


def repeated(random: Random, most: int) -> bytes:
    """Return something long and uniform, of `most` bytes at the most."""
    unit = random.choice(UNITS)
    times = 2 ** random.randrange(1, 17)
    start = random.choice([b"", b"a", b'"', b'a/b;"', b"a/b;", b"bytes=", b"W/"])
    return bytes(start + unit * times)[:most]


def _where(random: Random) -> bytes:
    column = random.choice(["text", "label", "source", '"text"', "annotations"])
    wild = "".join(random.choice("%_a'\\") for _ in range(random.randrange(1, 200))).replace("'", "''")
    like = random.choice(LIKES).format(wild * random.randrange(1, 10))
    conditions = [
        f"{column} LIKE '{like}'",
        f"{column} ILIKE '{like}'",
        " OR ".join([f"{column} = 'a'"] * random.randrange(1, 300)),
        "(" * random.randrange(1, 2000) + f"{column}='a'",
        "NOT " * random.randrange(1, 1000) + f"{column}='a'",
        f"{column} IN ({','.join(['1'] * random.randrange(1, 1000))})",
    ]
    return random.choice(conditions).encode()


def _value(random: Random, name: str) -> bytes:
    if name == "where" and random.random() < 0.8:
        return _where(random)
    if name in VALUES and random.random() < 0.6:
        return random.choice(VALUES[name])
    return repeated(random, 20_000) if random.random() < 0.5 else random.randbytes(random.randrange(30))


class Requests:
    """Hostile requests to one API, by its OpenAPI document."""

    def __init__(self, document: dict[str, Any], key: str) -> None:
        self._operations = [
            (method.upper(), path, [parameter["name"] for parameter in operation.get("parameters", [])])
            for path, operations in document["paths"].items()
            for method, operation in operations.items()
        ]
        self._key = key

    def make(self, random: Random) -> bytes:
        """Return one request as it goes over the wire; the server closes the connection after it."""
        method, path, names = random.choice(self._operations)
        head = [b"%b %b HTTP/1.1" % (method.encode(), self._address(random, path, names)), b"Connection: close"]
        headers = {b"Host": b"127.0.0.1"}
        if random.random() < 0.85:
            headers[b"Authorization"] = b"Bearer " + self._key.encode()
        body = b""
        if method in {"POST", "PATCH", "PUT"}:
            kind, coding, body = make_body(random)
            headers |= {b"Content-Type": kind, b"Content-Length": b"%d" % len(body)}
            headers |= {b"Content-Encoding": coding} if coding else {}
        for _ in range(random.choice([0, 0, 1, 1, 2])):
            headers[random.choice(HEADERS).encode()] = repeated(random, random.choice([100, 5_000, 60_000]))
        head += [b"%b: %b" % header for header in headers.items()]
        return b"\r\n".join(head) + b"\r\n\r\n" + body

    def _address(self, random: Random, path: str, names: list[str]) -> bytes:
        parts = [
            quote_from_bytes(_value(random, part[1:-1])[:2_000], safe="") if part.startswith("{") else part
            for part in path.split("/")
        ]
        chosen = random.sample(names, random.randrange(len(names) + 1)) if names else []
        required = [name for name in ("dataset", "config", "split", "where", "query") if name in names]
        pairs = [
            f"{quote_from_bytes(name.encode())}={quote_from_bytes(_value(random, name))}"
            for name in dict.fromkeys([*required, *chosen])
        ]
        return ("/".join(parts) + ("?" + "&".join(pairs) if pairs else "")).encode()[:60_000]


def _json(random: Random) -> bytes:
    size = 2 ** random.randrange(1, 15)
    bodies: list[bytes] = [
        b"[" * size + b"]" * size,
        b'{"text": "%b"}' % (b"a" * size),
        b'{"text": "a", "metadata": {%b}}' % b",".join(b'"k%d": 1' % n for n in range(size)),
        b'{"text": "a", "metadata": {"k": %b}}' % (b"1" * size),
        b'{"text": "%b"}' % ("a\u0301" * size).encode(),
        b'{"text": "%b"}' % (b"\\u200b" * size),
        json.dumps({"text": "x" + str(random.random()), "label": "toxic", "source": "fuzz"}).encode(),
        b'{"name": "x", "splits": {"a": 1}, "labels": [%b]}' % b",".join([b'"a"'] * size),
        random.randbytes(size),
    ]
    return random.choice(bodies)


def _table(random: Random) -> bytes:
    size = 2 ** random.randrange(1, 18)
    bodies: list[bytes] = [
        b"text,label\n" + b"a,toxic\n" * size,
        b"text" + b"," * size + b"\na\n",
        b",".join(b"c%d" % n for n in range(size % 40_000)) + b"\n",
        b'text\n"' + b"a" * size,
        b"text\n" + b'""' * size,
        b"text\n" + b"\r" * size,
        b"\n" * size,
        b'{"text": "a"}\n' * size,
        b'{"text": 1}\n' * size,
        b"{}\n" * size,
        b"[" + b'{"text": "a"},' * size,
    ]
    return random.choice(bodies)


def _parquet(random: Random) -> bytes:
    file = io.BytesIO()
    table = pa.table({"text": ["a"] * 1000, "label": ["toxic"] * 1000, "n": list(range(1000))})
    parquet.write_table(table, file, compression=random.choice(["none", "zstd", "snappy", "gzip"]))
    body = bytearray(file.getvalue())
    for _ in range(random.randrange(8)):
        body[random.randrange(len(body))] = random.randrange(256)
    return bytes(body)


BODIES: list[tuple[bytes, Callable[[Random], bytes]]] = [
    (b"application/json", _json),
    (b"application/x-ndjson", _table),
    (b"text/csv", _table),
    (b"application/json", _table),
    (b"application/vnd.apache.parquet", _parquet),
    (b"text/csv", _json),
]


def make_body(random: Random) -> tuple[bytes, bytes, bytes]:
    """Return a body with its media type and its coding, which may be empty."""
    kind, make = random.choice(BODIES)
    body = make(random)
    if random.random() < 0.3:
        packed = gzip.compress(body * random.choice([1, 1, 100]), 1)
        return kind, b"gzip", packed[: random.choice([len(packed), len(packed) // 2])]
    return kind, b"", body
