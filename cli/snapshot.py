"""`annotate snapshot`: creates, lists, compares and verifies snapshots of the labelled data."""

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryFile
from typing import Annotated, Any, BinaryIO

import httpx
import pyarrow as pa
import typer
from pyarrow import compute as pc
from pyarrow import parquet
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from cli import addresses
from cli.console import AsJson, err, fail, list_table, out, print_json, printable
from cli.forget import rewrite_marked
from cli.people.audit_log import noted
from cli.texts import export, file_imports
from core.audit import Action

_PIECE_BYTES = 2**20


def complaints(
    client: httpx.Client, url: str, copy: Path | None, about: Mapping[str, Any]
) -> tuple[list[str], pa.Array]:
    """Return the faults of a split's file, downloaded or a copy, and the ids in it.

    Raises:
        httpx.HTTPError, OSError: it cannot be read.
    """
    with TemporaryFile() as file:
        if copy:
            with copy.open("rb") as source:
                size, digest = _take(iter(lambda: source.read(_PIECE_BYTES), b""), file)
        else:
            with client.stream("GET", url) as answer:
                answer.raise_for_status()
                size, digest = _take(answer.iter_bytes(), file)
        wrong = []
        if size != about["bytes"]:
            wrong.append(f"has {size:,} bytes, not {about['bytes']:,}")
        if digest != about["sha256"]:
            wrong.append(f"has the SHA-256 {digest}, not {about['sha256']}")
        try:
            more, ids = _compare_rows(file, about)
        except (pa.ArrowException, OSError) as error:
            return [*wrong, f"cannot be read as Parquet: {error}".strip()], pa.array([], pa.string())
        return wrong + more, ids


def _take(pieces: Any, file: BinaryIO) -> tuple[int, str]:
    size, digest = 0, hashlib.sha256()
    for piece in pieces:
        file.write(piece)
        digest.update(piece)
        size += len(piece)
    return size, digest.hexdigest()


def _compare_rows(file: BinaryIO, about: Mapping[str, Any]) -> tuple[list[str], pa.Array]:
    table = parquet.read_table(file, columns=["id", "label"])
    wrong = []
    if len(table) != about["rows"]:
        wrong.append(f"holds {len(table):,} texts, not {about['rows']:,}")
    ids = table["id"].combine_chunks()
    if len(pc.unique(ids)) != len(ids):
        wrong.append("holds a text twice")
    labels = Counter(
        {one["values"] or "null": one["counts"] for one in pc.value_counts(table["label"]).to_pylist()}
    )
    if labels != Counter(about["labels"]):
        wrong.append(f"has these labels: {dict(labels)}, not {about['labels']}")
    return wrong, ids


def disjoint_complaints(ids: Mapping[str, pa.Array]) -> list[str]:
    """Return which splits hold the same texts."""
    names = [*ids]
    wrong = []
    for place, name in enumerate(names):
        for other in names[place + 1 :]:
            both = pc.sum(pc.is_in(ids[name], ids[other])).as_py() or 0
            if both:
                wrong.append(f"{name} and {other} have {both:,} texts in common")
    return wrong


app = typer.Typer(
    help="Create, list, compare, verify and delete snapshots. They are immutable exports of labelled texts.",
    no_args_is_help=True,
)

# The API responds when the snapshot is written, which may take long.
_TIMEOUT = httpx.Timeout(10, read=3600)
_PAGE = 1000


Splits = Annotated[
    list[str] | None, typer.Option("--split", help="NAME=SHARE, such as train=0.8. The shares add up to 1.")
]


@app.command()
def create(
    context: typer.Context,
    name: Annotated[str | None, typer.Argument(help="Default: made of dataset, version and content.")] = None,
    split: Splits = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Seed of the assignment of texts to splits.")] = None,
    stratify: Annotated[bool, typer.Option("--stratify", help="Give each label these shares.")] = False,
    dataset: export.Dataset = None,
    label: export.Label = None,
    source: export.Source = None,
    language: export.Language = None,
    status: export.Status = None,
    complete: export.Complete = None,
    annotator: export.Annotator = None,
    min_agreement: export.MinAgreement = None,
    min_annotations: export.MinAnnotations = None,
    labelled_after: export.LabelledAfter = None,
    labelled_before: export.LabelledBefore = None,
    predicted_label: export.PredictedLabel = None,
    q: export.Search = None,
) -> None:
    """Create a snapshot.

    If the same request already made a snapshot of the same version of the labels, that one is shown instead.
    """
    splits = _shares(split) if split else None
    given = {"name": name, "splits": splits, "seed": seed, "stratify": stratify or None}
    body = export.chosen(context) | {member: value for member, value in given.items() if value is not None}
    columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn())
    with Progress(*columns, console=err) as progress:
        progress.add_task("Writing the snapshot", total=None)
        answer = _call("POST", "/snapshots", json=body)
    if answer.status_code == httpx.codes.OK:
        err.print("It is there already: the same request made it of the same version.")
    _show(answer.json())


@app.command("list")
def list_(as_json: AsJson = False) -> None:
    """List the snapshots, newest first."""
    items = list(_pages("/snapshots"))
    if as_json:
        print_json(items)
        return
    table = list_table("name", "made", "dataset", "version", "texts", "splits", "content")
    for item in items:
        splits = " ".join(f"{name} {split['rows']:,}" for name, split in item["splits"].items())
        rows = sum(split["rows"] for split in item["splits"].values())
        cells = (item["name"], item["created_at"][:19], item["dataset"], str(item["version"]), f"{rows:,}", splits)
        table.add_row(*(printable(cell) for cell in cells), item["content_hash"][:12])
    out.print(table)


@app.command()
def diff(
    a: Annotated[str, typer.Argument(help="The earlier snapshot.")],
    b: Annotated[str, typer.Argument(help="The later snapshot.")],
    examples: Annotated[int, typer.Option(min=0, max=10_000, help="Number of changed texts to show.")] = 10,
    as_json: Annotated[bool, typer.Option("--json", help="Print all changed texts as JSON.")] = False,
) -> None:
    """Compare two snapshots: added, removed, relabelled and moved texts."""
    path = f"/snapshots/{_segment(a)}/diff/{_segment(b)}"
    page = _call("GET", path, params={"limit": max(1, _PAGE if as_json else examples)}).json()
    if as_json:
        page["items"] = list(_pages(path))
        print_json(page)
        return
    kinds = ("added", "removed", "relabelled", "moved")
    out.print(", ".join(f"{page[kind]:,} {kind}" for kind in kinds))
    if page["items"] and examples:
        table = list_table("id", "change", "label before", "after", "split before", "after")
        for item in page["items"]:
            table.add_row(*(printable("-" if value is None else value) for value in item.values()))
        out.print(table)


@app.command()
def delete(
    name: Annotated[str, typer.Argument(help="Name in `annotate snapshot list`.")],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask for confirmation.")] = False,
) -> None:
    """Delete a snapshot with all its files.

    This needs a key with the scope admin.
    """
    path = f"/snapshots/{_segment(name)}"
    if not yes:
        typer.confirm(f"Delete the snapshot {name} for good?", abort=True)
    with noted(Action.SNAPSHOT_DELETED, name):
        _call("DELETE", path)
    out.print(f"The snapshot {name} is deleted.", markup=False, highlight=False)


@app.command()
def verify(
    name: Annotated[str, typer.Argument(help="Name of the snapshot.")],
    folder: Annotated[
        Path | None,
        typer.Option(
            help="Check a copy in this folder instead of the files of the API.", file_okay=False, exists=True
        ),
    ] = None,
) -> None:
    """Check the files of a snapshot: hashes, rows, labels, and that no text is in two splits.

    Exit code 1: a check failed.
    """
    manifest = _call("GET", f"/snapshots/{_segment(name)}").json()
    url = f"{addresses.serving_url()}/snapshots/{_segment(name)}"
    found: list[str] = []
    ids: dict[str, Any] = {}
    for split, about in manifest["splits"].items():
        try:
            with httpx.Client(headers=addresses.headers(), timeout=_TIMEOUT) as client:
                source = folder / about["path"] if folder else None
                wrong, ids[split] = complaints(client, f"{url}/{split}.parquet", source, about)
        except (httpx.HTTPError, OSError) as error:
            wrong = [f"cannot be read: {error}"]
        found += [f"{split}: {one}" for one in wrong]
    found += disjoint_complaints(ids)
    for line in found:
        err.print(printable(line), style="red", soft_wrap=True)
    if found:
        raise typer.Exit(1)
    out.print(f"{printable(name)}: {len(manifest['splits'])} splits are as its manifest says.")


@app.command()
def rewrite(name: Annotated[str, typer.Argument(help="Name in `annotate snapshot list`.")]) -> None:
    """Remove texts from a snapshot that were forgotten after it was created."""
    rewrite_marked(name)


def _shares(given: list[str]) -> dict[str, float]:
    shares: dict[str, float] = {}
    for one in given:
        name, _, share = one.partition("=")
        try:
            shares[name] = float(share)
        except ValueError:
            fail(f"--split {printable(one)}: write it as NAME=SHARE, like train=0.8.")
    return shares


def _segment(name: str) -> str:
    # The name becomes part of a path, so it must not contain a slash or a query.
    if not name.replace("-", "").replace("_", "").replace(".", "").isalnum() or not name.isascii():
        fail(f"{printable(name)!r} is no name of a snapshot.")
    return name


def _call(method: str, path: str, **options: Any) -> httpx.Response:
    url = f"{addresses.serving_url()}{path}"
    try:
        answer = httpx.request(method, url, headers=addresses.headers(), timeout=_TIMEOUT, **options)
    except httpx.HTTPError as error:
        fail(f"{url}: {error or type(error).__name__}.")
    if answer.is_error:
        fail(file_imports.reason(answer))
    return answer


def _pages(path: str) -> Iterator[dict[str, Any]]:
    parameters: dict[str, Any] = {"limit": _PAGE}
    while True:
        page = _call("GET", path, params=parameters).json()
        yield from page["items"]
        if page["next_cursor"] is None:
            return
        parameters["cursor"] = page["next_cursor"]


def _show(manifest: dict[str, Any]) -> None:
    table = Table("split", "texts", "labels", "bytes", title=printable(manifest["name"]))
    for name, split in manifest["splits"].items():
        labels = ", ".join(f"{label} {count:,}" for label, count in split["labels"].items())
        table.add_row(printable(name), f"{split['rows']:,}", printable(labels), f"{split['bytes']:,}")
    out.print(table)
