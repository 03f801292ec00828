"""`annotate audit` shows the audit log in Postgres; the other commands write to it with `note` and `noted`."""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Annotated, Any

import typer
from sqlalchemy import Connection, select

from cli import addresses
from cli.console import SHORT_CHARACTERS, err, list_table, out, plain, print_json
from core.audit import Action, Entry, account, noting
from core.models import AuditEntry

_SHOWN_IDS = 3


def note(
    connection: Connection, action: Action, ids: Collection[Any], outcome: str = "done", **details: Any
) -> None:
    """Write an entry in the caller's transaction, with the account that runs this command; none without `ids`."""
    if ids:
        connection.execute(noting(Entry("cli", account(), action, ids, outcome, details)))


@contextmanager
def noted(action: Action, *ids: str, **details: Any) -> Iterator[None]:
    """Write an entry after the block, also if it fails; for actions outside of Postgres."""
    outcome = "failed"
    try:
        yield
        outcome = "done"
    finally:
        if not addresses.knows_database():
            err.print("No DATABASE_URL: this is not in the audit log.", style="yellow")
        else:
            with addresses.transaction("audit") as connection:
                note(connection, action, ids, outcome, **details)


def audit(
    action: Annotated[
        list[Action] | None,
        typer.Option(metavar="ACTION", help="Only this action. An unknown one lists them all."),
    ] = None,
    since: Annotated[datetime | None, typer.Option(help="Only entries since this time.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="Maximum number of entries.")] = 50,
    as_json: Annotated[bool, typer.Option("--json", help="Print each entry as a line of JSON.")] = False,
) -> None:
    """Show the audit log: which administrator did what, and when.

    The newest entry comes first.
    """
    query = select(AuditEntry.__table__).order_by(AuditEntry.id.desc()).limit(limit)
    if action:
        query = query.where(AuditEntry.action.in_(action))
    if since:
        query = query.where(AuditEntry.at >= since.astimezone())
    with addresses.transaction("audit") as connection:
        rows = connection.execute(query).mappings().all()
    if as_json:
        for row in rows:
            print_json(dict(row), indent=None)
        return
    table = list_table("when", "who", "what", "to", "outcome", "details")
    for row in rows:
        table.add_row(
            f"{row['at'].astimezone():%Y-%m-%d %H:%M:%S}",
            plain(f"{row['actor_kind']} {row['actor']}", SHORT_CHARACTERS),
            row["action"],
            plain(_objects(row["object_ids"], row["objects"])),
            row["outcome"],
            plain(" ".join(f"{name}={value}" for name, value in row["details"].items()), SHORT_CHARACTERS),
        )
    out.print(table)


def _objects(ids: list[str], number: int) -> str:
    shown = " ".join(ids[:_SHOWN_IDS])
    return shown if number <= _SHOWN_IDS else f"{shown} … {number:,} in all"
