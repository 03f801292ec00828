"""`annotate uploads`: lists, shows, retries and verifies uploads to Argilla, directly in Postgres."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

import typer
from rich.progress import Progress
from rich.table import Table
from sqlalchemy import Connection, Row, bindparam, func, select, text, update

from cli import addresses
from cli.argilla_api import PAGE, Answer, ArgillaApi, open_argilla
from cli.console import SHORT_CHARACTERS, AsJson, err, fail, list_table, out, plain, print_json, printable
from cli.people.audit_log import note
from core.audit import Action
from core.models import Annotation, DatasetRow, Label, Text, TextStatus
from core.text_identity import BEFORE_ALL

app = typer.Typer(help="List, show, retry and verify uploads to Argilla.", no_args_is_help=True)

_DONE = {TextStatus.UPLOADED, TextStatus.FORGOTTEN, TextStatus.DEMO}

DatasetOption = Annotated[str | None, typer.Option(help="Only texts of this dataset.")]


@app.command("list")
def list_uploads(
    status: Annotated[
        list[TextStatus] | None,
        typer.Option(
            metavar="STATUS",
            help="Only texts with this status, such as failed. Default: all that are not uploaded.",
        ),
    ] = None,
    dataset: DatasetOption = None,
    limit: Annotated[int, typer.Option(min=1, help="Maximum number of texts of each status.")] = 50,
) -> None:
    """List texts by status, in the order received."""
    table = list_table("id", "dataset", "status", "attempts", "received", "text", "last error")
    with addresses.transaction("uploads") as connection:
        for chosen in status or [s for s in TextStatus if s not in _DONE]:
            for row in _find(connection, chosen, dataset, limit):
                table.add_row(
                    str(row.id),
                    plain(row.dataset),
                    row.status,
                    str(row.attempts),
                    f"{row.received_at:%Y-%m-%d %H:%M}",
                    plain(row.text, SHORT_CHARACTERS),
                    plain(row.last_error or "", SHORT_CHARACTERS),
                )
    out.print(table)


def _find(connection: Connection, status: TextStatus, dataset: str | None, limit: int) -> list[Row[Any]]:
    columns = (Text.id, Text.dataset, Text.status, Text.attempts, Text.received_at, Text.text, Text.last_error)
    # A literal, because each status has its own partial index.
    query = select(*columns).where(Text.status == bindparam(None, status, Text.status.type, literal_execute=True))
    if dataset is not None:
        query = query.where(Text.dataset == dataset)
    return list(connection.execute(query.order_by(Text.sequence).limit(limit)))


@app.command()
def show(id_: Annotated[UUID, typer.Argument(metavar="ID", help="Id in `annotate uploads list`.")]) -> None:
    """Show everything about one text: status, attempts, times, Argilla's error, annotations."""
    with addresses.transaction("uploads") as connection:
        text = connection.execute(select(Text.__table__).where(Text.id == id_)).mappings().one_or_none()
        label = connection.execute(select(Label.__table__).where(Label.text_id == id_)).mappings().one_or_none()
        annotations = _count_annotations(connection, id_)
    if text is None:
        fail(f"There is no text {id_}.")
    table = Table("what", "value", show_header=False)
    shown = dict(text) | {"annotations": annotations}
    if label is not None:
        shown |= {"label": label["label"], "label_status": label["status"], "labelled_at": label["labelled_at"]}
    for name, value in shown.items():
        table.add_row(name.replace("_", " "), plain(_written(value)))
    out.print(table)


def _count_annotations(connection: Connection, id_: UUID) -> str:
    query = (
        select(Annotation.status, Annotation.withdrawn_at.is_not(None).label("withdrawn"), func.count())
        .where(Annotation.text_id == id_)
        .group_by("status", "withdrawn")
        .order_by("status", "withdrawn")
    )
    counts = [f"{n} {status}{', withdrawn' if gone else ''}" for status, gone, n in connection.execute(query)]
    return "; ".join(counts) or "none"


@app.command()
def retry(
    ids: Annotated[list[UUID] | None, typer.Argument(metavar="ID", help="Failed texts. Default: all.")] = None,
    all_: Annotated[bool, typer.Option("--all", help="All failed texts: the same as no ID.")] = False,
    dataset: DatasetOption = None,
) -> None:
    """Upload failed texts again.

    Exit code 1: some of the named texts have not failed.
    """
    if ids and all_:
        err.print("Name texts, or give --all: not both.", style="red")
        raise typer.Exit(2)
    # failed -> pending: an operator fixed the cause; attempts and Argilla's error stay until Argilla responds
    statement = (
        update(Text).where(Text.status == TextStatus.FAILED).values(status=TextStatus.PENDING, retry_at=None)
    )
    if ids:
        statement = statement.where(Text.id.in_(ids))
    if dataset is not None:
        statement = statement.where(Text.dataset == dataset)
    with addresses.transaction("uploads") as connection:
        retried = {row.id for row in connection.execute(statement.returning(Text.id))}
        note(connection, Action.UPLOADS_RETRIED, retried, **({"dataset": dataset} if dataset else {}))
    out.print(f"{len(retried):,} texts are pending again.")
    if others := [id_ for id_ in ids or [] if id_ not in retried]:
        fail("\n".join(f"There is no failed text {id_}." for id_ in others))


def _written(value: Any) -> str:
    if value is None:
        return "-"
    return value.isoformat(sep=" ", timespec="seconds") if isinstance(value, datetime) else str(value)


# Differences may be changes under way, so they are checked again after this time.
_SETTLE_SECONDS = 5.0
# With more differences than this, a second check would not help.
_MOVING_TEXTS = 2500

_PAGE_OF_IDS = text("""
select id from texts where dataset = :dataset and status = 'uploaded' and id > :after order by id limit :count
""")
_STILL = text("select id from texts where id = any(:ids) and status = 'uploaded' order by id")
_KNOWN = text("""
select id from texts where dataset = :dataset and id = any(:ids) and status <> 'forgotten'
""")


@dataclass
class Report:
    """The differences of one dataset. The ids are those of texts, except in `unknown`."""

    dataset: str
    argilla_dataset_id: UUID
    exists: bool = True  # Argilla has the dataset
    refilling: bool = False  # texts of a lost dataset are being put back into the queue
    pending: int = 0
    uploaded: int = 0
    stored: int = 0
    searchable: int | None = 0  # None: Argilla cannot count
    missing: list[str] = field(default_factory=list)  # not in Argilla's database
    not_searchable: list[str] = field(default_factory=list)  # there, but its search does not show it
    unknown: list[str] = field(default_factory=list)  # external ids in Argilla that we do not know
    answers_differ: list[str] = field(default_factory=list)
    answers_kept: int = 0  # held of an earlier dataset in Argilla; its annotators are not in this one

    @property
    def in_step(self) -> bool:
        """Whether all hold the same."""
        wrong = self.missing or self.not_searchable or self.unknown or self.answers_differ
        return self.exists and not self.refilling and not wrong and self.stored == self.searchable


def _list_datasets(name: str | None) -> list[Report]:
    """Return an empty report for each dataset that was ever uploaded, or for the one of this name."""
    query = select(
        DatasetRow.name, DatasetRow.argilla_dataset_id, DatasetRow.refill_position.is_not(None).label("refilling")
    )
    query = query.where(DatasetRow.argilla_dataset_id.is_not(None)).order_by(DatasetRow.name)
    if name is not None:
        query = query.where(DatasetRow.name == name)
    with addresses.transaction("uploads verify") as connection:
        return [
            Report(row.name, row.argilla_dataset_id, refilling=row.refilling) for row in connection.execute(query)
        ]


def _fill_in(argilla: ArgillaApi, report: Report) -> Report:
    """Fill in what a dataset's parts hold, with a progress bar."""
    with addresses.connection("uploads verify") as connection, Progress(console=err, transient=True) as progress:
        report.pending = _count(connection, report.dataset, TextStatus.PENDING, TextStatus.UPLOADING)
        report.uploaded = _count(connection, report.dataset, TextStatus.UPLOADED)
        report.exists = argilla.has_dataset(report.argilla_dataset_id)
        if not report.exists:
            return report
        task = progress.add_task(printable(report.dataset), total=report.uploaded)
        _compare_ours(connection, argilla, report, lambda count: progress.advance(task, count))
        report.stored = argilla.count_stored(report.argilla_dataset_id)
        report.searchable = argilla.count_searchable(report.argilla_dataset_id)
        progress.update(task, completed=0, total=report.stored)
        _compare_theirs(connection, argilla, report, lambda count: progress.advance(task, count))
    return report


def _count(connection: Connection, dataset: str, *statuses: TextStatus) -> int:
    query = select(func.count()).where(Text.dataset == dataset, Text.status.in_(statuses))
    return connection.scalar(query) or 0


def _compare_ours(
    connection: Connection, argilla: ArgillaApi, report: Report, on_texts: Callable[[int], None]
) -> None:
    """Look up every uploaded text in Argilla, and those that differ once more after a pause."""
    suspects: list[UUID] = []
    for ids in _pages(connection, report.dataset):
        suspects += _compare(connection, argilla, report, ids)
        on_texts(len(ids))
    if not 0 < len(suspects) <= _MOVING_TEXTS:
        return
    time.sleep(_SETTLE_SECONDS)
    report.missing, report.not_searchable, report.answers_differ = [], [], []
    kept = report.answers_kept
    for start in range(0, len(suspects), PAGE):
        ids = list(connection.scalars(_STILL, {"ids": suspects[start : start + PAGE]}))
        _compare(connection, argilla, report, ids)
    report.answers_kept = kept


def _pages(connection: Connection, dataset: str) -> Iterator[list[UUID]]:
    after = BEFORE_ALL
    while ids := list(connection.scalars(_PAGE_OF_IDS, {"dataset": dataset, "after": after, "count": PAGE})):
        connection.rollback()  # no snapshot is held while Argilla is asked
        yield ids
        after = ids[-1]


def _compare(connection: Connection, argilla: ArgillaApi, report: Report, ids: Sequence[UUID]) -> list[UUID]:
    """Compare some texts; return those that differ."""
    if not ids:
        return []
    shown = argilla.find_answers(report.argilla_dataset_id, ids)
    hidden = [id_ for id_ in ids if id_ not in shown]
    stored = argilla.find_stored(report.argilla_dataset_id, hidden) if hidden else set()
    held = _list_held(connection, ids)
    differing = [id_ for id_ in shown if not _agree(held.get(id_, []), shown[id_], report)]
    report.not_searchable += [str(id_) for id_ in hidden if id_ in stored]
    report.missing += [str(id_) for id_ in hidden if id_ not in stored]
    report.answers_differ += [str(id_) for id_ in differing]
    return hidden + differing


def _list_held(connection: Connection, ids: Sequence[UUID]) -> dict[UUID, list[tuple[UUID | None, Answer]]]:
    columns = (Annotation.annotator, Annotation.status, Annotation.value)
    query = select(Annotation.text_id, Annotation.argilla_dataset_id, *columns)
    held: dict[UUID, list[tuple[UUID | None, Answer]]] = {}
    for row in connection.execute(query.where(Annotation.text_id.in_(ids), Annotation.withdrawn_at.is_(None))):
        answer = (row.annotator, str(row.status), row.value)
        held.setdefault(row.text_id, []).append((row.argilla_dataset_id, answer))
    connection.rollback()
    return held


def _agree(held: list[tuple[UUID | None, Answer]], shown: list[Answer], report: Report) -> bool:
    """Whether we hold the answers that Argilla shows. Counts answers that only an earlier dataset had."""
    answering = {annotator for annotator, *_ in shown}
    kept = [a for where, a in held if where != report.argilla_dataset_id and a[0] not in answering]
    report.answers_kept += len(kept)
    return sorted(map(repr, shown)) == sorted(repr(answer) for _, answer in held if answer not in kept)


def _compare_theirs(
    connection: Connection, argilla: ArgillaApi, report: Report, on_records: Callable[[int], None]
) -> None:
    """Look up every record in Postgres, unless the counts show that there is no unknown record."""
    if report.stored == report.uploaded - len(report.missing):
        return
    offset = 0
    while external_ids := argilla.list_external_ids(report.argilla_dataset_id, offset):
        ours = {UUID(id_) for id_ in external_ids if _is_id(id_)}
        known = set(map(str, connection.scalars(_KNOWN, {"dataset": report.dataset, "ids": list(ours)})))
        connection.rollback()
        report.unknown += [id_ for id_ in external_ids if id_ not in known]
        offset += len(external_ids)
        on_records(len(external_ids))


def _is_id(external_id: str) -> bool:
    try:
        UUID(external_id)
    except ValueError:
        return False
    return True


@app.command()
def verify(
    dataset: Annotated[str | None, typer.Option(help="Only this dataset.")] = None,
    examples: Annotated[int, typer.Option(min=0, help="Number of example ids for each difference.")] = 5,
    as_json: AsJson = False,
) -> None:
    """Compare Postgres, Argilla's database and its search index.

    The command only reads. It reports missing and invisible texts, unknown records and different answers. It needs
    Argilla's address and key, or a running local stack. Exit code 1: there are differences.
    """
    found = _list_datasets(dataset)
    if not found:
        fail("No dataset was ever uploaded." if dataset is None else f"No dataset {dataset} was ever uploaded.")
    with open_argilla(addresses.argilla()) as argilla:
        reports = [_fill_in(argilla, report) for report in found]
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
