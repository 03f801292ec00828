"""Requests to forget texts: their progress, and the removal of forgotten texts from snapshots."""

import time
from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

import httpx
import typer
from rich.table import Table
from sqlalchemy import Connection, bindparam, text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.types import Uuid

from cli import addresses
from cli.console import err, fail, out, plain, printable
from cli.people.audit_log import noted
from core.audit import Action
from core.forgetting.repository import IS_OPEN, IS_UNFINISHED, store_files_seen, waits_for_files
from core.forgetting.service import name_steps
from core.settings import ForgetSettings, read_settings

_IDS = bindparam("ids", type_=ARRAY(Uuid))

_REQUESTS = text("""
select * from forget_requests where text_id = any(:ids) or cardinality(cast(:ids as uuid[])) = 0
order by requested_at, text_id
""").bindparams(_IDS)

_OPEN_STEPS = ", ".join(f"{is_open} as {step}" for step, is_open in IS_OPEN.items())
_STUCK = text(f"""
select text_id, dataset, argilla_note, {_OPEN_STEPS} from forget_requests
where argilla_note is not null
    or {IS_UNFINISHED} and requested_at <= now() - make_interval(secs => :alert_seconds)
order by requested_at limit 20
""")  # noqa: S608 - constants only


def show_requests(ids: Sequence[UUID]) -> None:
    """Show all forget requests, or those of these texts, after an update of their progress."""
    with addresses.transaction("forget") as connection:
        _look(connection)
        rows = connection.execute(_REQUESTS, {"ids": list(ids)}).all()
        stuck = list_stuck(connection)
    table = Table("id", "dataset", "by", "postgres", "imports", "argilla", "replica", "snapshots", "lifted")
    for row in rows:
        table.add_row(
            str(row.text_id),
            plain(row.dataset),
            plain(row.requested_by),
            _written(row.requested_at),
            _written(row.imports_at),
            _argilla(row),
            *(_written(at) if row.was_labelled else "never had it" for at in (row.replica_at, row.snapshots_at)),
            _written(row.lifted_at) if row.lifted_at else "",
        )
    out.print(table)
    for line in stuck:
        err.print(line, style="red")


def list_stuck(connection: Connection) -> list[str]:
    """Return a line for each request that is overdue or blocked by Argilla; 20 at most."""
    values = {"alert_seconds": read_settings(ForgetSettings).alert_seconds}
    return [
        f"forgetting of {row.text_id} in {row.dataset} is not complete: {row.argilla_note or name_steps(row)}"
        for row in connection.execute(_STUCK, values)
    ]


def look_if_waited_for(connection: Connection) -> None:
    """Store the serving API's progress, if a request waits for it."""
    if waits_for_files(connection):
        _look(connection)


def _look(connection: Connection) -> None:
    try:
        seen = read_forgotten()
    except httpx.HTTPError as error:
        err.print(f"Replica and snapshots as last seen; the serving API: {error}")
        return
    store_files_seen(connection, seen)


def _argilla(row: Any) -> str:
    if row.argilla_at is None and row.removed_at is not None:
        return f"{_written(row.removed_at)}, watched"
    return _written(row.argilla_at)


def _written(at: datetime | None) -> str:
    return f"{at:%Y-%m-%d %H:%M:%S}" if at else "not yet"


_WAIT_SECONDS = 60
LOOK_SECONDS = 0.5
# The API rewrites one snapshot in this time.
_TIMEOUT_SECONDS = 600
# A body may have 1 MiB.
_IDS_AT_ONCE = 20_000

_NEWEST = text("""
select coalesce(max(cast(cast(changed_xid as text) as bigint)), 0)
from labels join forget_requests using (text_id)
where was_labelled and copy_of is null
""")


def read_forgotten() -> dict[str, Any]:
    """Return the serving API's progress of forgetting.

    Raises:
        httpx.HTTPError: the API does not answer, or refuses the key.
    """
    answer = httpx.get(f"{addresses.serving_url()}/forgotten", headers=addresses.headers(), timeout=60)
    answer.raise_for_status()
    found: dict[str, Any] = answer.json()
    return found


def rewrite_marked(name: str | None = None) -> None:
    """Remove forgotten texts from all snapshots, or from one; waits until the replica knows the texts."""
    with addresses.transaction("forget") as connection:
        newest: int = connection.execute(_NEWEST).scalar_one()
    refusals = []
    try:
        marked = [one for one in _wait_for(newest)["snapshots"] if name in {None, one["name"]}]
        for snapshot in marked:
            try:
                with noted(Action.SNAPSHOT_REWRITTEN, snapshot["name"], texts=len(snapshot["ids"])):
                    _rewrite(snapshot)
            except httpx.HTTPStatusError as error:  # the others are rewritten all the same
                refusals.append(f"{snapshot['name']}: {printable(error.response.text)}")
    except httpx.HTTPStatusError as error:
        fail(f"{error.request.url}: {printable(error.response.text)}")
    except httpx.HTTPError as error:
        fail(f"The serving API at {addresses.serving_url()}: {error}")
    out.print(f"{len(marked) - len(refusals):,} snapshots were rewritten.")
    if refusals:
        fail("\n".join(refusals))


def _wait_for(version: int) -> dict[str, Any]:
    deadline = time.monotonic() + _WAIT_SECONDS
    while (seen := read_forgotten())["version"] < version:
        if time.monotonic() > deadline:
            fail("The replica does not know these texts yet. Run it again with --rewrite-snapshots alone.")
        time.sleep(LOOK_SECONDS)
    return seen


def _rewrite(snapshot: dict[str, Any]) -> None:
    url = f"{addresses.serving_url()}/snapshots/{snapshot['name']}/rewrite"
    for first in range(0, len(snapshot["ids"]), _IDS_AT_ONCE):
        body = {"without": snapshot["ids"][first : first + _IDS_AT_ONCE]}
        httpx.post(url, json=body, headers=addresses.headers(), timeout=_TIMEOUT_SECONDS).raise_for_status()
    out.print(f"{snapshot['name']}: {len(snapshot['ids']):,} texts taken out")


def rewrite(name: Annotated[str, typer.Argument(help="Name in `annotate snapshot list`.")]) -> None:
    """Remove texts from a snapshot that were forgotten after it was created."""
    rewrite_marked(name)
