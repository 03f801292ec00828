"""What the tests of imports share."""

import json
from typing import Any

import httpx
import psycopg

from tests.waiting import wait_for

NDJSON = {"Content-Type": "application/x-ndjson"}
PART = {"Content-Type": "application/partial-upload"}
ENDED = {"done", "failed"}


def lines(count: int, text: str = "text") -> bytes:
    """NDJSON with this number of texts."""
    return b"".join(json.dumps({"text": f"{text} {n}"}).encode() + b"\n" for n in range(count))


def open_import(client: httpx.Client, query: str = "", headers: dict[str, str] = NDJSON) -> str:
    """Make an import without its body; returns its path."""
    answer = client.post(f"/imports{query}", headers=headers | {"Upload-Complete": "?0"})
    assert answer.status_code == 202, answer.text
    return answer.headers["location"]


def append(client: httpx.Client, path: str, offset: int, body: Any, complete: str | None = None) -> httpx.Response:
    """Go on with the upload."""
    headers = PART | {"Upload-Offset": str(offset)}
    if complete:
        headers["Upload-Complete"] = complete
    return client.patch(path, content=body, headers=headers)


def stored_bytes(client: httpx.Client, path: str) -> int:
    """How much of the body is stored."""
    answer = client.head(path)
    assert answer.status_code == 204
    return int(answer.headers["upload-offset"])


def ended(client: httpx.Client, path: str, seconds: float = 60) -> dict[str, Any]:
    """Wait until the import has ended, and return it."""
    wait_for(lambda: client.get(path).json()["state"] in ENDED, seconds)
    result: dict[str, Any] = client.get(path).json()
    return result


def counts(result: dict[str, Any]) -> tuple[int, int, int, int]:
    """The counts of an import or of a bulk answer."""
    return result["received"], result["accepted"], result["duplicates"], result["rejected"]


def count_texts(database_url: str) -> int:
    """How many texts there are."""
    with psycopg.connect(database_url) as connection:
        row = connection.execute("select count(*) from texts").fetchone()
    assert row
    return int(row[0])
