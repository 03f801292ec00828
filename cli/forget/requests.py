"""What was asked to be forgotten, and how far that has come. Nothing here tells what the texts were."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import httpx
from rich.table import Table
from sqlalchemy import Connection, Engine, bindparam, text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.types import Uuid

from cli.console import err, out, plain
from cli.forget.rewriting import read_forgotten
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


def show_requests(engine: Engine, ids: Sequence[UUID]) -> None:
    """Show what was asked to be forgotten, all of it or these texts, after looking how far it has come."""
    with engine.begin() as connection:
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
    """Return a line for each request that takes too long, or that Argilla does not let finish; 20 at most."""
    values = {"alert_seconds": read_settings(ForgetSettings).alert_seconds}
    return [
        f"forgetting of {row.text_id} in {row.dataset} is not complete: {row.argilla_note or name_steps(row)}"
        for row in connection.execute(_STUCK, values)
    ]


def look_if_waited_for(connection: Connection) -> None:
    """Store what the serving API says it holds no more, if a request waits for that."""
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
