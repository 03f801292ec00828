"""`annotate ingest`: sends files to the ingestion API as imports, or previews how they would be read."""

import io
import json
import shlex
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import pyarrow as pa
import typer
from pyarrow import parquet
from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table

from cli.console import SHORT_CHARACTERS, err, fail, out, plain, printable
from cli.texts import file_imports

_FIRST_BYTES = 1024 * 1024
_WHOLE_BYTES = 16 * _FIRST_BYTES  # of formats with an index at the end
_FIRST_ROWS = 1000
_FIELDS = ("text", "label", "score", "source", "external_id", "metadata")


def show_previews(kinds: Mapping[Path, dict[str, str]], parameters: dict[str, str]) -> None:
    """Show how each file would be read; end with exit code 1 if one would be refused."""
    is_refused = False
    for file, kind in kinds.items():
        with file_imports.open_api(f"{file}: ") as api:
            start, is_whole = _read_start(file, kind)
            preview = file_imports.preview(api, start, kind, parameters)
        preview["complete"] = preview["complete"] and is_whole
        _show_preview(file, preview)
        is_refused |= preview["problem"] is not None
    if is_refused:
        raise SystemExit(1)


def _read_start(file: Path, kind: dict[str, str]) -> tuple[bytes, bool]:
    """Return the part of a file that the API previews, and whether the file is sent unchanged.

    One byte more than the API reads shows the API that the file continues.
    """
    is_parquet = kind == file_imports.headers_of_file(Path("x.parquet"))
    if is_parquet and file.stat().st_size > _WHOLE_BYTES:
        return _first_rows(file), False
    with file.open("rb") as body:
        is_indexed = body.read(4) in {b"PAR1", b"PK\x03\x04"}
        body.seek(0)
        return body.read((_WHOLE_BYTES if is_indexed else _FIRST_BYTES) + 1), True


def _first_rows(file: Path) -> bytes:
    """Return the first rows of a Parquet file as a file of their own."""
    try:
        with parquet.ParquetFile(file) as rows:
            start = io.BytesIO()
            parquet.write_table(pa.Table.from_batches([next(rows.iter_batches(_FIRST_ROWS))]), start)
    except pa.ArrowException as error:
        fail(f"{file}: {error}")
    return start.getvalue()


def _show_preview(file: Path, preview: dict[str, Any]) -> None:
    facts = [preview["format"], preview["charset"], preview["delimiter"] and repr(preview["delimiter"])]
    out.print(f"{file.name}: {', '.join(fact for fact in facts if fact)}")
    columns = Table("column", "type", "becomes", "first values")
    for column in preview["columns"]:
        samples = plain(", ".join(column["samples"][:3]), SHORT_CHARACTERS)
        columns.add_row(plain(column["name"]), column["type"], ", ".join(column["roles"]) or "-", samples)
    out.print(columns)
    rows = Table("row", *_FIELDS)
    for row in preview["rows"]:
        fields = row["submission"]
        cells = (plain(str(fields.get(name, "")), SHORT_CHARACTERS) for name in _FIELDS)
        rows.add_row(str(row["row"]), *cells)
    out.print(rows)
    extent = "all rows" if preview["complete"] else "the first rows"
    out.print(f"Of {extent}, {preview['received']:,}, {preview['rejected']:,} would be rejected.")
    for line in file_imports.describe_groups(preview["errors"]):
        err.print(printable(line), soft_wrap=True)
    if preview["problem"] is not None:
        err.print(f"{file.name}: {file_imports.explain(preview['problem'])}", style="red", soft_wrap=True)
        return
    out.print(
        "Nothing is stored. To store it:", _ingest_command(file, preview["parameters"]), sep="\n", soft_wrap=True
    )


def _ingest_command(file: Path, parameters: dict[str, str]) -> str:
    options = ((f"--{name.replace('_', '-')}", value) for name, value in parameters.items())
    return shlex.join(["annotate", "ingest", str(file), *(word for option in options for word in option)])


# The options that go to the API as they are.
_PARAMETERS = (
    *("text", "label", "label_map", "score", "external_id", "source", "dataset", "metadata", "delimiter"),
    *("charset", "on_error"),
)


Files = Annotated[
    list[Path],
    typer.Argument(
        exists=True, dir_okay=False, help="CSV, NDJSON, JSON, Parquet or .xlsx; also with .gz or .zst."
    ),
]
Rejects = Annotated[Path | None, typer.Option(dir_okay=False, help="Write the rejected rows to this NDJSON file.")]
Resume = Annotated[str | None, typer.Option(metavar="ID", help="Continue this import; only with a single file.")]


def ingest(
    context: typer.Context,
    files: Files,
    text: Annotated[str | None, typer.Option(help="Column with the text. Default: text.")] = None,
    label: Annotated[str | None, typer.Option(help="Column with the claimed label. Default: label.")] = None,
    label_map: Annotated[
        str | None, typer.Option(help="Labels in the file and their names here: Toxic:toxic,Not Toxic:non_toxic")
    ] = None,
    score: Annotated[str | None, typer.Option(help="Column with the score, 0 to 1. Default: score.")] = None,
    external_id: Annotated[str | None, typer.Option(help="Column with your own id. Default: external_id.")] = None,
    source: Annotated[str | None, typer.Option(help="Source of the texts, or the column with it.")] = None,
    dataset: Annotated[str | None, typer.Option(help="Dataset of the texts.")] = None,
    metadata: Annotated[
        str | None, typer.Option(help="Columns to store as metadata: all, none, or a list such as a,b.")
    ] = None,
    delimiter: Annotated[str | None, typer.Option(help="CSV delimiter: , ; | or tab. Default: detected.")] = None,
    charset: Annotated[str | None, typer.Option(help="Charset of CSV that is not UTF-8: windows-1252.")] = None,
    on_error: Annotated[
        Literal["skip", "abort"] | None,
        typer.Option(help="Skip a bad row, or abort the import of its file. Default: skip."),
    ] = None,
    rejects: Rejects = None,
    resume: Resume = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show how the files are read; store nothing.")
    ] = False,
) -> None:
    """Send files of texts to the platform.

    Exit code 1: some rows were rejected, or a file could not be sent.
    """
    kinds = {file: _kind(file) for file in files}
    if resume is not None and len(files) > 1:
        fail("--resume continues one file.")
    parameters = {name: value for name in _PARAMETERS if (value := context.params[name]) is not None}
    if dry_run:
        show_previews(kinds, parameters)
    else:
        _ingest(kinds, parameters, rejects, resume)


def _ingest(
    kinds: dict[Path, dict[str, str]], parameters: dict[str, str], rejects: Path | None, resume: str | None
) -> None:
    results: dict[Path, dict[str, Any]] = {}
    with _progress() as progress, rejects.open("w") if rejects else nullcontext() as target:
        for file, kind in kinds.items():
            bar = progress.add_task(file.name, total=file.stat().st_size)
            waiting = partial(progress.update, bar, description=f"{file.name} (waiting for the API)")
            with file_imports.open_api(f"{file}: ", waiting) as api:
                results[file] = _hand_in(api, file, kind, parameters, resume, progress, bar)
                if target is not None:
                    target.writelines(_rejects(api, file, results[file]))
            if results[file]["state"] != "done":
                break
    _report(results)


def _kind(file: Path) -> dict[str, str]:
    kind = file_imports.headers_of_file(file)
    if kind is None:
        fail(f"{file}: unknown kind of file; known are {file_imports.KNOWN_SUFFIXES}.")
    return kind


def _progress() -> Progress:
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(),
        TimeRemainingColumn(),
    )
    return Progress(*columns, console=err)


def _hand_in(
    api: file_imports.Api,
    file: Path,
    kind: dict[str, str],
    parameters: dict[str, str],
    resume: str | None,
    progress: Progress,
    bar: TaskID,
) -> dict[str, Any]:
    """Send a file and wait until its rows are stored; return the ended import."""
    path = None
    result: dict[str, Any] = {}
    try:
        path = f"/imports/{resume}" if resume else file_imports.create_import(api, file, kind, parameters)
        sending = f"{file.name}: sending"
        file_imports.send_file(
            api, path, file, lambda stored: progress.update(bar, completed=stored, description=sending)
        )
        progress.reset(bar, total=file.stat().st_size, description=f"{file.name}: storing")
        for result in file_imports.follow(api, path):
            _show(progress, bar, file, result)
    except KeyboardInterrupt:
        if path:
            _say_how_to_continue(path.rsplit("/", 1)[-1], file, is_complete=bool(result))
        raise
    return result


def _say_how_to_continue(id_: str, file: Path, *, is_complete: bool) -> None:
    """After Ctrl-C, say how to continue or stop the import."""
    if is_complete:
        err.print("The import goes on at the server.", f"See it with: annotate imports show {id_}", sep="\n")
    else:
        err.print(f"Go on with: annotate ingest --resume {id_} {file}", soft_wrap=True)
    err.print(f"Stop it with: annotate imports cancel {id_}", soft_wrap=True)


def _show(progress: Progress, bar: TaskID, file: Path, result: dict[str, Any]) -> None:
    done = result["progress"]
    rate = f", {done['rows_per_second']:,.0f} rows/s" if done["rows_per_second"] else ""
    description = f"{file.name}: storing, {done['rows']:,} rows{rate}"
    progress.update(bar, completed=done["bytes"], description=description)


def _rejects(api: file_imports.Api, file: Path, result: dict[str, Any]) -> Iterator[str]:
    for line in file_imports.rejected_rows(api, f"/imports/{result['id']}"):
        yield json.dumps({"file": file.name} | json.loads(line), ensure_ascii=False) + "\n"


def _report(results: dict[Path, dict[str, Any]]) -> None:
    """Show the results, and end with exit code 1 unless every row was stored."""
    table = Table("file", *file_imports.COUNTS)
    for file, result in results.items():
        table.add_row(file.name, *(str(result[name]) for name in file_imports.COUNTS))
    out.print(table)
    for file, result in results.items():
        if result["state"] != "done":
            problem = result["problem"] or {"detail": f"the import was {result['state']}."}
            fail(f"{file}: {file_imports.explain(problem | {'error_groups': result['error_groups']})}")
        kept = result.get("rejects_kept", result["rejected"])
        if kept < result["rejected"]:
            err.print(f"{file.name}: only the first {kept} rejected rows are kept.", markup=False)
        for line in file_imports.describe_groups(result["error_groups"]):
            err.print(printable(f"{file.name}, {line}"), soft_wrap=True)
    if any(result["rejected"] for result in results.values()):
        raise typer.Exit(1)
