"""`annotate export`: labelled texts into a file, with a progress bar."""

import secrets
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, BinaryIO, Literal

import httpx
import typer
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeElapsedColumn, TransferSpeedColumn

from cli import addresses
from cli.console import err, fail
from cli.texts import import_client, label_filters

_FORMATS = {
    ".parquet": "parquet",
    ".arrow": "arrow",
    ".arrows": "arrows",
    ".ndjson": "ndjson",
    ".jsonl": "ndjson",
    ".csv": "csv",
}
_STANDARD_OUTPUT = Path("-")
# A filter that leaves little looks at everything before the first byte comes.
_TIMEOUT = httpx.Timeout(10, read=300)


def export(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(help="File to write; - for standard output.", dir_okay=False)],
    format_: Annotated[
        Literal["parquet", "arrow", "arrows", "ndjson", "csv"] | None,
        typer.Option("--format", help="Kind of file; else by its ending."),
    ] = None,
    dataset: label_filters.Dataset = None,
    label: label_filters.Label = None,
    source: label_filters.Source = None,
    language: label_filters.Language = None,
    status: label_filters.Status = None,
    complete: label_filters.Complete = None,
    annotator: label_filters.Annotator = None,
    min_agreement: label_filters.MinAgreement = None,
    min_annotations: label_filters.MinAnnotations = None,
    labelled_after: label_filters.LabelledAfter = None,
    labelled_before: label_filters.LabelledBefore = None,
    q: label_filters.Search = None,
    order: Annotated[Literal["newest", "oldest"] | None, typer.Option(help="Which label comes first.")] = None,
    spreadsheet: Annotated[bool, typer.Option("--spreadsheet", help="CSV that is safe in a spreadsheet.")] = False,
) -> None:
    """Save labelled texts as Parquet, Arrow, NDJSON or CSV. The file is there when it is whole, or not at all."""
    given = {"order": order, "spreadsheet": "true" if spreadsheet else None}
    url = f"{addresses.serving_url()}/export.{format_ or _format(file)}"
    parameters = label_filters.chosen(context) | {
        name: value for name, value in given.items() if value is not None
    }
    try:
        version = _save(url, parameters, file)
    except httpx.HTTPError as error:
        fail(f"{url}: {error or type(error).__name__}. Nothing was saved.")
    except OSError as error:
        fail(f"{file}: {error.strerror or error}. Nothing was saved.")
    if file != _STANDARD_OUTPUT:
        size = f"{file.stat().st_size:,} bytes"
        err.print(f"{file}: {size}, version {version} of the labels.", soft_wrap=True)


def _format(file: Path) -> str:
    known = _FORMATS.get(file.suffix.lower())
    if known is None:
        fail(f"{file}: say the --format, or let the name end in {', '.join(_FORMATS)}.")
    return known


def _save(url: str, parameters: dict[str, Any], file: Path) -> str:
    """Write the answer to the file and return its version."""
    with (
        httpx.Client(headers=addresses.headers(), timeout=_TIMEOUT) as client,
        client.stream("GET", url, params=parameters) as answer,
    ):
        if answer.is_error:
            answer.read()
            fail(import_client.reason(answer))
        with _progress() as progress, _whole(file) as target:
            bar = progress.add_task(file.name, total=None)
            for piece in answer.iter_bytes():
                target.write(piece)
                progress.advance(bar, len(piece))
        return str(answer.headers.get("x-replica-version"))


def _progress() -> Progress:
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), DownloadColumn())
    return Progress(*columns, TransferSpeedColumn(), TimeElapsedColumn(), console=err)


@contextmanager
def _whole(file: Path) -> Iterator[BinaryIO]:
    """Give a file beside this one, which takes its place at the end, or goes away after an error."""
    if file == _STANDARD_OUTPUT:
        with open(sys.stdout.fileno(), "wb", closefd=False) as target:
            yield target
        return
    part = file.with_name(f".{file.name}.{secrets.token_hex(4)}.part")
    try:
        with part.open("xb") as target:
            yield target
        part.replace(file)
    finally:
        part.unlink(missing_ok=True)
