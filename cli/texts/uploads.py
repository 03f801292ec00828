"""`annotate uploads`: lists, shows and retries uploads to Argilla, directly in Postgres."""

from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

import typer
from rich.table import Table
from sqlalchemy import Connection, Row, bindparam, func, select, update

from cli import addresses
from cli.console import SHORT_CHARACTERS, err, fail, out, plain
from cli.people.audit_log import note
from cli.texts.verify import verify
from core.audit import Action
from core.models import Annotation, Label, Text, TextStatus

app = typer.Typer(help="List, show, retry and verify uploads to Argilla.", no_args_is_help=True)
app.command()(verify)

_DONE = {TextStatus.UPLOADED, TextStatus.FORGOTTEN, TextStatus.DEMO}

DatasetOption = Annotated[str | None, typer.Option(help="Only texts of this dataset.")]


@app.command("list")
def list_uploads(
    status: Annotated[
        list[TextStatus] | None,
        typer.Option(help="Only texts with this status. Default: all texts that are not uploaded."),
    ] = None,
    dataset: DatasetOption = None,
    limit: Annotated[int, typer.Option(min=1, help="Maximum number of texts of each status.")] = 50,
) -> None:
    """List texts by status, in the order received."""
    table = Table("id", "dataset", "status", "attempts", "received", "text", "last error")
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
    ids: Annotated[
        list[UUID] | None, typer.Argument(metavar="[ID]...", help="Failed texts. Default: all.")
    ] = None,
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
