"""`annotate ingest`: files to the ingestion API, with a progress bar.

A run that was cut off is resumed by running it again: what is stored already comes back as duplicates.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import httpx
import typer
from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table
from tenacity import Retrying, retry_if_exception, stop_after_delay, wait_random_exponential

from cli import addresses
from cli.console import err, fail, out

_MEDIA_TYPES = {
    ".csv": "text/csv",
    ".ndjson": "application/x-ndjson",
    ".jsonl": "application/x-ndjson",
    ".json": "application/json",
    ".parquet": "application/vnd.apache.parquet",
}
_COUNTS = ("received", "accepted", "duplicates", "rejected")
_CHUNK_BYTES = 256 * 1024
_RETRY_SECONDS = 300
# Nothing is read until the last row is stored, so the answer may take as long as the file is big.
_TIMEOUT = httpx.Timeout(30, read=None)


def ingest(
    files: Annotated[list[Path], typer.Argument(exists=True, dir_okay=False, help="CSV, NDJSON or Parquet.")],
    text: Annotated[str, typer.Option(help="Column of the text.")] = "text",
    label: Annotated[str | None, typer.Option(help="Column of the claimed label.")] = None,
    label_map: Annotated[str | None, typer.Option(help="Toxic:toxic,Not Toxic:non_toxic")] = None,
    source: Annotated[str | None, typer.Option(help="Where the texts come from.")] = None,
    dataset: Annotated[str | None, typer.Option(help="Dataset of the texts.")] = None,
    metadata: Annotated[Literal["none", "all"], typer.Option(help="What becomes of other columns.")] = "none",
    on_error: Annotated[Literal["skip", "abort"], typer.Option(help="What a bad row does to its file.")] = "skip",
) -> None:
    """Hand in files of texts. Exit code 1: some rows were rejected, or a file could not be handed in."""
    kinds = {file: _media_type(file) for file in files}
    given = {
        "text": text,
        "label": label,
        "label_map": label_map,
        "source": source,
        "dataset": dataset,
        "metadata": metadata,
        "on_error": on_error,
    }
    parameters = {name: value for name, value in given.items() if value is not None}
    with httpx.Client(base_url=addresses.ingestion_url(), headers=addresses.headers(), timeout=_TIMEOUT) as client:
        results = _hand_in(client, kinds, parameters)
    _report(results)
    if any(result["rejected"] for result in results.values()):
        raise typer.Exit(1)


def _media_type(file: Path) -> str:
    kind = _MEDIA_TYPES.get(file.suffix.lower())
    if kind is None:
        fail(f"{file}: unknown kind of file; known are {', '.join(_MEDIA_TYPES)}.")
    return kind


def _hand_in(
    client: httpx.Client, kinds: dict[Path, str], parameters: dict[str, str]
) -> dict[Path, dict[str, Any]]:
    results = {}
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=err) as progress:
        for file, kind in kinds.items():
            bar = progress.add_task(file.name, total=file.stat().st_size)
            results[file] = _hand_in_file(client, file, kind, parameters, progress, bar)
    return results


def _hand_in_file(
    client: httpx.Client, file: Path, kind: str, parameters: dict[str, str], progress: Progress, bar: TaskID
) -> dict[str, Any]:
    for attempt in Retrying(
        retry=retry_if_exception(_is_passing),
        wait=wait_random_exponential(max=10),
        stop=stop_after_delay(_RETRY_SECONDS),
        before_sleep=lambda _: progress.update(bar, description=f"{file.name} (waiting for the API)"),
        reraise=True,
    ):
        with attempt:
            progress.reset(bar, description=file.name)
            try:
                answer = client.post(
                    "/texts/bulk",
                    params=parameters,
                    headers={"Content-Type": kind},
                    content=_read(file, progress, bar),
                )
                answer.raise_for_status()
            except httpx.HTTPStatusError as error:
                if _is_passing(error):
                    raise
                fail(f"{file}: {_reason(error.response)}")
            except httpx.TransportError as error:
                err.print(f"{client.base_url}: {error}", markup=False)
                raise
    result: dict[str, Any] = answer.json()
    return result


def _is_passing(error: BaseException) -> bool:
    if isinstance(error, httpx.HTTPStatusError):
        return error.response.status_code in {429, 502, 503, 504}
    return isinstance(error, httpx.TransportError)


def _reason(answer: httpx.Response) -> str:
    if answer.headers.get("content-type", "").startswith("application/problem+json"):
        problem = answer.json()
        lines = [problem["detail"]]
        lines += [
            f"row {e['row']}: {e['detail']}" if "row" in e else e["detail"] for e in problem.get("errors", [])[:10]
        ]
        return "\n  ".join(lines)
    return f"the API answered {answer.status_code}."


def _read(file: Path, progress: Progress, bar: TaskID) -> Iterator[bytes]:
    with file.open("rb") as stream:
        while chunk := stream.read(_CHUNK_BYTES):
            yield chunk
            progress.advance(bar, len(chunk))


def _report(results: dict[Path, dict[str, Any]]) -> None:
    table = Table("file", *_COUNTS)
    for file, result in results.items():
        table.add_row(file.name, *(str(result[name]) for name in _COUNTS))
    out.print(table)
    for file, result in results.items():
        for error in result["errors"]:
            err.print(f"{file.name}, row {error['row']}: {error['detail']} ({error['code']})", markup=False)
