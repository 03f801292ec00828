"""`annotate ingest`: files to the ingestion API as imports, with a progress bar."""

import json
from collections.abc import Iterator
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import httpx
import typer
from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table

from cli import addresses
from cli.console import err, fail, out, printable
from cli.texts import import_client
from cli.texts.ingest_preview import show_previews

_COUNTS = ("received", "accepted", "duplicates", "rejected")


def ingest(
    files: Annotated[
        list[Path],
        typer.Argument(exists=True, dir_okay=False, help="CSV, NDJSON, JSON, Parquet, .xlsx; also .gz and .zst."),
    ],
    text: Annotated[str | None, typer.Option(help="Column of the text; else text.")] = None,
    label: Annotated[str | None, typer.Option(help="Column of the claimed label; else label.")] = None,
    label_map: Annotated[str | None, typer.Option(help="Toxic:toxic,Not Toxic:non_toxic")] = None,
    score: Annotated[str | None, typer.Option(help="Column of the score, 0 to 1; else score.")] = None,
    external_id: Annotated[str | None, typer.Option(help="Column of your own id; else external_id.")] = None,
    source: Annotated[str | None, typer.Option(help="Where the texts come from, or a column of that.")] = None,
    dataset: Annotated[str | None, typer.Option(help="Dataset of the texts.")] = None,
    metadata: Annotated[str | None, typer.Option(help="Columns to keep as metadata: all, none, or a,b.")] = None,
    delimiter: Annotated[str | None, typer.Option(help="Of CSV, where it is not found: , ; | or tab.")] = None,
    charset: Annotated[str | None, typer.Option(help="Of CSV that is not UTF-8, like windows-1252.")] = None,
    on_error: Annotated[
        Literal["skip", "abort"] | None, typer.Option(help="What a bad row does to its file; else skip.")
    ] = None,
    rejects: Annotated[
        Path | None, typer.Option(dir_okay=False, help="File to write the rejected rows to, as NDJSON.")
    ] = None,
    resume: Annotated[
        str | None, typer.Option(metavar="ID", help="Go on with this import, of the only file.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show how the files would be read, and store nothing.")
    ] = False,
) -> None:
    """Hand in files of texts. Exit code 1: some rows were rejected, or a file could not be handed in."""
    kinds = {file: _kind(file) for file in files}
    if resume is not None and len(files) > 1:
        fail("--resume goes on with one file.")
    given = {
        "text": text,
        "label": label,
        "label_map": label_map,
        "score": score,
        "external_id": external_id,
        "source": source,
        "dataset": dataset,
        "metadata": metadata,
        "delimiter": delimiter,
        "charset": charset,
        "on_error": on_error,
    }
    parameters = {name: value for name, value in given.items() if value is not None}
    if dry_run:
        show_previews(kinds, parameters)
    else:
        _ingest(kinds, parameters, rejects, resume)


def _ingest(
    kinds: dict[Path, dict[str, str]], parameters: dict[str, str], rejects: Path | None, resume: str | None
) -> None:
    results: dict[Path, dict[str, Any]] = {}
    with (
        httpx.Client(base_url=addresses.ingestion_url(), headers=addresses.headers(), timeout=60) as client,
        _progress() as progress,
        rejects.open("w") if rejects else nullcontext() as target,
    ):
        for file, kind in kinds.items():
            bar = progress.add_task(file.name, total=file.stat().st_size)
            waiting = partial(progress.update, bar, description=f"{file.name} (waiting for the API)")
            try:
                api = import_client.Api(client, waiting)
                results[file] = _hand_in(api, file, kind, parameters, resume, progress, bar)
                if target is not None:
                    target.writelines(_rejects(api, file, results[file]))
            except (import_client.Refused, httpx.HTTPError, httpx.InvalidURL) as error:
                fail(f"{file}: {error}")
            if results[file]["state"] != "done":
                break
    _report(results)


def _kind(file: Path) -> dict[str, str]:
    kind = import_client.headers_of_file(file)
    if kind is None:
        fail(f"{file}: unknown kind of file; known are {import_client.KNOWN_SUFFIXES}.")
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
    api: import_client.Api,
    file: Path,
    kind: dict[str, str],
    parameters: dict[str, str],
    resume: str | None,
    progress: Progress,
    bar: TaskID,
) -> dict[str, Any]:
    """Send a file and wait until its rows are stored; returns the import as it has ended."""
    path = None
    result: dict[str, Any] = {}
    try:
        path = f"/imports/{resume}" if resume else import_client.create_import(api, file, kind, parameters)
        sending = f"{file.name}: sending"
        import_client.send_file(
            api, path, file, lambda stored: progress.update(bar, completed=stored, description=sending)
        )
        progress.reset(bar, total=file.stat().st_size, description=f"{file.name}: storing")
        for result in import_client.follow(api, path):
            _show(progress, bar, file, result)
    except KeyboardInterrupt:
        if path:
            _say_what_goes_on(path.rsplit("/", 1)[-1], file, is_complete=bool(result))
        raise
    return result


def _say_what_goes_on(id_: str, file: Path, *, is_complete: bool) -> None:
    """After Ctrl-C: what becomes of the import, and what to do about it."""
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


def _rejects(api: import_client.Api, file: Path, result: dict[str, Any]) -> Iterator[str]:
    for line in import_client.rejected_rows(api, f"/imports/{result['id']}"):
        yield json.dumps({"file": file.name} | json.loads(line), ensure_ascii=False) + "\n"


def _report(results: dict[Path, dict[str, Any]]) -> None:
    """Show what became of the files, and end with exit code 1 unless every row was stored."""
    table = Table("file", *_COUNTS)
    for file, result in results.items():
        table.add_row(file.name, *(str(result[name]) for name in _COUNTS))
    out.print(table)
    for file, result in results.items():
        if result["state"] != "done":
            problem = result["problem"] or {"detail": f"the import was {result['state']}."}
            fail(f"{file}: {import_client.explain(problem | {'error_groups': result['error_groups']})}")
        kept = result.get("rejects_kept", result["rejected"])
        if kept < result["rejected"]:
            err.print(f"{file.name}: only the first {kept} rejected rows are kept.", markup=False)
        for line in import_client.describe_groups(result["error_groups"]):
            err.print(printable(f"{file.name}, {line}"), soft_wrap=True)
    if any(result["rejected"] for result in results.values()):
        raise typer.Exit(1)
