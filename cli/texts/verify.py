"""`annotate uploads verify`: whether Postgres, Argilla's database and its search index hold the same."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Annotated

import httpx
import typer
from rich.table import Table

from cli import addresses
from cli.console import fail, out, print_json, printable
from cli.texts.argilla_reader import ArgillaReader
from cli.texts.comparison import Report, compare, list_datasets
from core.connections import make_engine


def verify(
    dataset: Annotated[str | None, typer.Option(help="This dataset only.")] = None,
    examples: Annotated[int, typer.Option(min=0, help="Ids of each kind to show.")] = 5,
    as_json: Annotated[bool, typer.Option("--json", help="Everything, for programs.")] = False,
) -> None:
    """Compare Postgres, Argilla's database and its search index. Exit code 1: they are out of step."""
    engine = make_engine(addresses.database(), "annotate uploads verify")
    argilla = ArgillaReader(addresses.argilla())
    found = list_datasets(engine, dataset)
    if not found:
        fail("No dataset was ever uploaded." if dataset is None else f"No dataset {dataset} was ever uploaded.")
    try:
        argilla.read_usernames()
        reports = [compare(engine, argilla, report) for report in found]
    except httpx.HTTPError as error:
        fail(f"Argilla at {argilla.http.base_url}: {error}")
    if as_json:
        datasets = [asdict(report) | {"in_step": report.in_step} for report in reports]
        print_json({"datasets": datasets})
    else:
        _show(reports, examples)
    if not all(report.in_step for report in reports):
        raise typer.Exit(1)


def _show(reports: Sequence[Report], examples: int) -> None:
    table = Table("dataset", "in step", "pending", "uploaded", "records", "searchable", "answers kept")
    for report in reports:
        searchable = "-" if report.searchable is None else f"{report.searchable:,}"
        numbers = (f"{report.pending:,}", f"{report.uploaded:,}", f"{report.stored:,}", searchable)
        table.add_row(
            printable(report.dataset), "yes" if report.in_step else "no", *numbers, f"{report.answers_kept:,}"
        )
    out.print(table)
    for line in (line for report in reports for line in _complaints(report, examples)):
        out.print(printable(line), soft_wrap=True)


def _complaints(report: Report, examples: int) -> Iterator[str]:
    name = report.dataset
    if not report.exists:
        yield f"{name}: Argilla has no dataset {report.argilla_dataset_id} any more. The uploader makes a new one."
    if report.refilling:
        yield f"{name}: the uploader puts its texts back into the queue, to fill a new dataset in Argilla."
    if report.searchable is None:
        yield f"{name}: Argilla's search index is lost, or OpenSearch is away."
    for ids, what in (
        (report.missing, "uploaded, but not in Argilla's database"),
        (report.not_searchable, "in Argilla's database, but its search does not show them"),
        (report.unknown, "in Argilla, but not ours"),
        (report.answers_differ, "whose answers in Argilla are others than those that we hold"),
    ):
        if ids:
            shown = ", ".join(ids[:examples]) + (", …" if len(ids) > examples else "")
            yield f"{name}: {len(ids):,} {what}{': ' if shown else ''}{shown}"
