"""The client of `/imports`, and `annotate imports`, which lists, shows and cancels imports."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, BinaryIO, TypeVar
from uuid import UUID

import httpx
import typer
from rich.table import Table
from tenacity import Retrying, retry_if_exception, stop_after_delay, wait_random_exponential

from cli import addresses
from cli.console import err, fail, out, printable
from core.tables.opening import ENCODINGS, SUFFIXES, kind_of_file

KNOWN_SUFFIXES = f"{', '.join(SUFFIXES)}, also with {' or '.join(ENCODINGS)}"

_PIECE_BYTES = 8 * 1024 * 1024
_RETRY_SECONDS = 300
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.1, 1.0

_SHOWN_REASONS = 10
_SHOWN_ROWS = 5

_ENDED = {"done", "failed"}
COUNTS = ("received", "accepted", "duplicates", "rejected")

Result = TypeVar("Result")


class ImportRefused(Exception):
    """The API refuses a request, and would refuse it again."""


@dataclass(frozen=True)
class Api:
    """The ingestion API. Each call is retried while the API is unreachable, and calls `waiting` before each retry.

    Raises:
        ImportRefused: the API refused the request; contains its reason.
        httpx.HTTPError: the API was unreachable for five minutes.
    """

    client: httpx.Client
    waiting: Callable[[], None]

    def request(self, method: str, path: str, **more: Any) -> httpx.Response:
        """Send a request that is safe to repeat."""
        return self.patiently(lambda: _send(self.client, method, path, **more))

    def patiently(self, action: Callable[[], Result]) -> Result:
        """Repeat an action while its error is temporary."""
        retrying = Retrying(
            retry=retry_if_exception(_is_passing),
            wait=wait_random_exponential(max=10),
            stop=stop_after_delay(_RETRY_SECONDS),
            before_sleep=lambda _: self.waiting(),
            reraise=True,
        )
        try:
            return retrying(action)
        except httpx.HTTPStatusError as error:
            raise ImportRefused(reason(error.response)) from None


def _say_waiting() -> None:
    err.print("waiting for the API")


@contextmanager
def open_api(prefix: str = "", waiting: Callable[[], None] = _say_waiting) -> Iterator[Api]:
    """Give the ingestion API to a block; its errors end the program, with `prefix` before the reason."""
    try:
        with httpx.Client(base_url=addresses.ingestion_url(), headers=addresses.headers(), timeout=60) as client:
            yield Api(client, waiting)
    except (ImportRefused, httpx.HTTPError, httpx.InvalidURL, OSError) as error:
        fail(f"{prefix}{error}")


def headers_of_file(file: Path) -> dict[str, str] | None:
    """Return the headers for the format and compression of a file, by its suffixes; None if unknown."""
    kind = kind_of_file(file)
    if kind is None:
        return None
    media_type, encoding = kind
    return {"Content-Type": media_type} | ({} if encoding == "identity" else {"Content-Encoding": encoding})


def create_import(api: Api, file: Path, kind: dict[str, str], parameters: dict[str, str]) -> str:
    """Create an import without its file; return its path."""
    headers = kind | {"Upload-Complete": "?0", "Upload-Length": str(file.stat().st_size)}
    path: str = api.request("POST", "/imports", params=parameters, headers=headers).headers["location"]
    return path


def send_file(api: Api, path: str, file: Path, on_stored: Callable[[int], None]) -> None:
    """Send the part of a file that is not stored yet; `on_stored` gets the number of stored bytes."""
    complete = False
    with file.open("rb") as stream:
        while not complete:
            stored, complete = api.patiently(lambda: _send_piece(api.client, path, stream, file.stat().st_size))
            on_stored(stored)


def _send_piece(client: httpx.Client, path: str, stream: BinaryIO, size: int) -> tuple[int, bool]:
    """Send the next piece; return how many bytes are stored, and whether the file is complete."""
    state = _send(client, "HEAD", path).headers
    stored = int(state["upload-offset"])
    if state["upload-complete"] == "?1":
        return stored, True
    stream.seek(stored)
    piece = stream.read(_PIECE_BYTES)
    headers = {
        "Content-Type": "application/partial-upload",
        "Upload-Offset": str(stored),
        "Upload-Complete": "?1" if stored + len(piece) >= size else "?0",
    }
    answer = _send(client, "PATCH", path, headers=headers, content=piece)
    return stored + len(piece), answer.headers["upload-complete"] == "?1"


def follow(api: Api, path: str) -> Iterator[dict[str, Any]]:
    """Yield the state of the import until it has ended."""
    pause = _FIRST_PAUSE_SECONDS
    while True:
        result: dict[str, Any] = api.request("GET", path).json()
        yield result
        if result["state"] in _ENDED:
            return
        time.sleep(pause)
        pause = min(pause * 1.5, _LONGEST_PAUSE_SECONDS)


def preview(api: Api, body: bytes, kind: dict[str, str], parameters: dict[str, str]) -> dict[str, Any]:
    """Return how the beginning of a file would be read."""
    result: dict[str, Any] = api.request(
        "POST", "/imports/preview", params=parameters, headers=kind, content=body
    ).json()
    return result


def rejected_rows(api: Api, path: str) -> Iterator[str]:
    """Yield the rejected rows, a line of JSON each."""
    with api.client.stream("GET", f"{path}/rejects") as answer:
        answer.raise_for_status()
        yield from answer.iter_lines()


def reason(answer: httpx.Response) -> str:
    """Return the reason in an error response."""
    if not answer.headers.get("content-type", "").startswith("application/problem+json"):
        return f"the API answered {answer.status_code}."
    try:
        return explain(answer.json())
    except ValueError:  # HEAD has no body
        return f"the API answered {answer.status_code}."


def explain(problem: dict[str, Any]) -> str:
    """Return the text of a problem, with its first errors unless the text contains them."""
    of_rows = describe_groups(problem.get("error_groups", []))
    errors = (error for error in problem.get("errors", []) if "row" not in error)
    others = [error["detail"] for error in errors if error["detail"] not in problem["detail"]]
    return "\n  ".join(map(printable, [problem["detail"], *of_rows, *others[:_SHOWN_REASONS]]))


def describe_groups(groups: list[dict[str, Any]]) -> list[str]:
    """Return a line for each reason why rows were rejected, with their number and the first of them."""
    shown = [f"{name_rows(g['count'], g['rows'])}: {g['detail']} ({g['code']})" for g in groups[:_SHOWN_REASONS]]
    return [*shown, "and other reasons"] if len(groups) > _SHOWN_REASONS else shown


def name_rows(count: int, numbers: list[int]) -> str:
    """Return `row 7`, or `20 rows (1, 2, 3, 4, 5, …)`."""
    if count == 1:
        return f"row {numbers[0]}"
    first = ", ".join(map(str, numbers[:_SHOWN_ROWS]))
    return f"{count:,} rows ({first}{', …' if count > _SHOWN_ROWS else ''})"


def _send(client: httpx.Client, method: str, path: str, **more: Any) -> httpx.Response:
    try:
        answer = client.request(method, path, **more)
    except httpx.TransportError as error:
        err.print(f"{client.base_url}: {error}")
        raise
    answer.raise_for_status()
    return answer


def _is_passing(error: BaseException) -> bool:
    if isinstance(error, httpx.HTTPStatusError):
        # An upload may be cut (408), or be overtaken by its own retry (409). The next attempt reads the offset.
        overtaken = error.request.method == "PATCH" and "upload_offset_mismatch" in error.response.text
        return overtaken or error.response.status_code in {408, 429, 502, 503, 504}
    return isinstance(error, httpx.TransportError)


app = typer.Typer(help="List, show and cancel imports of files.", no_args_is_help=True)


@app.command("list")
def list_imports(
    state: Annotated[
        str | None, typer.Option(help="Only imports in this state: receiving, waiting, running, done or failed.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="Maximum number of imports.")] = 20,
) -> None:
    """List the imports, newest first."""
    parameters: dict[str, Any] = {"limit": limit} | ({"state": state} if state else {})
    with open_api() as api:
        found = api.request("GET", "/imports", params=parameters).json()["items"]
    table = Table("id", "created", "state", *COUNTS)
    for item in found:
        counts = (f"{item[name]:,}" for name in COUNTS)
        table.add_row(item["id"], item["created_at"][:19].replace("T", " "), item["state"], *counts)
    out.print(table)


@app.command()
def show(id_: Annotated[UUID, typer.Argument(metavar="ID", help="Id in `annotate imports list`.")]) -> None:
    """Show one import: its progress, and the reasons for rejected rows."""
    with open_api() as api:
        found = api.request("GET", f"/imports/{id_}").json()
    table = Table(show_header=False)
    upload, progress = found["upload"], found["progress"]
    parameters = "&".join(f"{name}={value}" for name, value in found["parameters"].items())
    for name, value in (
        ("state", found["state"]),
        ("read as", f"{found['media_type']}, {parameters}"),
        ("created", found["created_at"]),
        ("finished", found["finished_at"] or "not yet"),
        ("uploaded", f"{upload['offset']:,} of {upload['length'] or 0:,} bytes"),
        ("rows", f"{progress['rows']:,}"),
        *((name, f"{found[name]:,}") for name in COUNTS),
    ):
        table.add_row(name, printable(value))
    out.print(table)
    for line in describe_groups(found["error_groups"]):
        err.print(printable(line), soft_wrap=True)
    if found["problem"]:
        err.print(explain(found["problem"]), style="red", soft_wrap=True)


@app.command()
def cancel(id_: Annotated[UUID, typer.Argument(metavar="ID", help="Id in `annotate imports list`.")]) -> None:
    """Stop and delete an import.

    Rows that it has stored stay.
    """
    with open_api() as api:
        api.request("DELETE", f"/imports/{id_}")
    out.print(f"{id_} is stopped. Rows that were stored stay.")
