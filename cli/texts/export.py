"""`annotate export`: saves labelled texts in a file. Also the filter options that snapshots share."""

import secrets
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, BinaryIO, Literal

import httpx
import typer

from cli import addresses
from cli.console import byte_progress, err, fail
from cli.texts import file_imports

Dataset = Annotated[str | None, typer.Option(help="Dataset. Default: the platform's default dataset.")]
Label = Annotated[list[str] | None, typer.Option(help="Only texts with this label.")]
Source = Annotated[str | None, typer.Option(help="Only texts from this source.")]
Language = Annotated[str | None, typer.Option(help="Only texts in this language.")]
Status = Annotated[str | None, typer.Option(help="Only texts with this status: labelled or disputed.")]
Complete = Annotated[
    bool | None, typer.Option("--complete/--incomplete", help="Only texts that have, or lack, all wanted answers.")
]
Annotator = Annotated[str | None, typer.Option(help="Only texts that this annotator answered.")]
MinAgreement = Annotated[float | None, typer.Option(help="Only texts with at least this agreement, 0 to 1.")]
MinAnnotations = Annotated[int | None, typer.Option(help="Only texts with at least this number of annotations.")]
PredictedLabel = Annotated[str | None, typer.Option(help="Only texts that the model gives this label.")]
LabelledAfter = Annotated[str | None, typer.Option(help="Only labels later than this time (RFC 3339).")]
LabelledBefore = Annotated[str | None, typer.Option(help="Only labels earlier than this time (RFC 3339).")]
Search = Annotated[str | None, typer.Option(help="Only texts that contain these words.")]

_NAMES = (
    *("dataset", "label", "source", "language", "status", "complete", "annotator", "min_agreement"),
    *("min_annotations", "labelled_after", "labelled_before", "predicted_label", "q"),
)


def chosen(context: typer.Context) -> dict[str, Any]:
    """Return the filters that the user gave, by their names in the API."""
    given = {name: context.params[name] for name in _NAMES}
    return {name: value for name, value in given.items() if value is not None and value not in ((), [])}


_FORMATS = {
    ".parquet": "parquet",
    ".arrow": "arrow",
    ".arrows": "arrows",
    ".ndjson": "ndjson",
    ".jsonl": "ndjson",
    ".csv": "csv",
}
_STANDARD_OUTPUT = Path("-")
# With a selective filter, the API reads everything before it sends the first byte.
_TIMEOUT = httpx.Timeout(10, read=300)


Format = Annotated[
    Literal["parquet", "arrow", "arrows", "ndjson", "csv"] | None,
    typer.Option(
        "--format", metavar="FORMAT", help="parquet, arrow, arrows, ndjson or csv. Default: by the file's suffix."
    ),
]
Order = Annotated[
    Literal["newest", "oldest"] | None, typer.Option(help="Order by the time of the label. Default: newest.")
]


def export(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(help="File to write, or - for standard output.", dir_okay=False)],
    format_: Format = None,
    dataset: Dataset = None,
    label: Label = None,
    source: Source = None,
    language: Language = None,
    status: Status = None,
    complete: Complete = None,
    annotator: Annotator = None,
    min_agreement: MinAgreement = None,
    min_annotations: MinAnnotations = None,
    labelled_after: LabelledAfter = None,
    labelled_before: LabelledBefore = None,
    predicted_label: PredictedLabel = None,
    q: Search = None,
    order: Order = None,
    spreadsheet: Annotated[bool, typer.Option("--spreadsheet", help="CSV that is safe in a spreadsheet.")] = False,
) -> None:
    """Save labelled texts as Parquet, Arrow, NDJSON or CSV.

    The file appears when it is complete. An interrupted export leaves no file.
    """
    given = {"order": order, "spreadsheet": "true" if spreadsheet else None}
    url = f"{addresses.serving_url()}/export.{format_ or _format(file)}"
    parameters = chosen(context) | {name: value for name, value in given.items() if value is not None}
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
    """Write the response to the file; return the version of the labels."""
    with (
        httpx.Client(headers=addresses.headers(), timeout=_TIMEOUT) as client,
        client.stream("GET", url, params=parameters) as answer,
    ):
        if answer.is_error:
            answer.read()
            fail(file_imports.reason(answer))
        with byte_progress() as progress, _whole(file) as target:
            bar = progress.add_task(file.name, total=None)
            for piece in answer.iter_bytes():
                target.write(piece)
                progress.advance(bar, len(piece))
        return str(answer.headers.get("x-replica-version"))


@contextmanager
def _whole(file: Path) -> Iterator[BinaryIO]:
    """Give a temporary file that replaces the file at the end, and is deleted after an error."""
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
