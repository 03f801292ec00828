"""`annotate forget`: deletes texts in Postgres, shows the progress in all other places, and rewrites snapshots."""

import re
import time
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any
from uuid import UUID

import httpx
import typer
from sqlalchemy import Connection, text

from cli import addresses
from cli.console import SHORT_CHARACTERS, err, fail, list_table, out, plain, printable
from cli.people.audit_log import note, noted
from core.audit import Action, account
from core.datasets import adjudication_of, load_datasets
from core.forgetting.repository import (
    IS_OPEN,
    IS_UNFINISHED,
    forget_values,
    lift,
    store_files_seen,
    waits_for_files,
)
from core.forgetting.service import find_traces, forget_texts, name_steps
from core.settings import DatasetsFileSettings, ForgetSettings, read_settings
from core.text_identity import text_id

# The id of an adjudicators' copy means its original. External ids have no index.
_BY_ID = text("""
select coalesce(adjudicates, id) from texts where id = any(:ids) and status <> 'forgotten'
""")
_BY_EXTERNAL_ID = text("""
select distinct coalesce(adjudicates, id) from texts
where external_id = any(:external_ids) and status <> 'forgotten'
""")
_COLUMNS = "select id, dataset, text, external_id, status from texts where status <> 'forgotten' and"
_TEXTS = text(f"{_COLUMNS} id = any(:ids) order by id")
_COPIES = text(f"{_COLUMNS} adjudicates is not null and adjudicates = any(:ids) order by id")
_TWINS = text("""
select id from texts
where status <> 'forgotten' and id <> all(:ids) and id in (
    select text_id from near_duplicates where twin_id = any(:ids)
    union select twin_id from near_duplicates where text_id = any(:ids)
)
order by id
""")
# Without an index, Postgres reads whole tables.
_TAKE_TIME = text("set local statement_timeout = 0")

_SHOWN_TEXTS = 20
_FIRST_BYTES = 4096
_ID_LINE = re.compile(rb"\s*[0-9a-fA-F-]{32,36}\s*(?:[\r\n]|$)")

Ids = Annotated[list[UUID] | None, typer.Argument(metavar="ID", help="Texts to forget.")]
ExternalIds = Annotated[list[str] | None, typer.Option(help="All texts with this external id; can be repeated.")]
IdFile = Annotated[
    Path | None,
    typer.Option(exists=True, dir_okay=False, help="File with one text id a line, or a table with a column id."),
]


def forget(
    ids: Ids = None,
    external_id: ExternalIds = None,
    file: IdFile = None,
    dataset: Annotated[
        str | None, typer.Option(help="Only in this dataset. Default: in all datasets that contain the text.")
    ] = None,
    by: Annotated[
        str | None, typer.Option(help="Who requested it, for the log. Default: the name of your account.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask for confirmation.")] = False,
    rewrite_snapshots: Annotated[
        bool,
        typer.Option("--rewrite-snapshots", help="Also remove them from the snapshots; waits for the replica."),
    ] = False,
    list_: Annotated[bool, typer.Option("--list", help="Show the requests and their progress.")] = False,
    lift_: Annotated[bool, typer.Option("--lift", help="Allow these forgotten texts to be sent again.")] = False,
) -> None:
    """Delete texts everywhere, for good.

    Texts disappear from Postgres, Argilla, the replicas and the change feed. A log entry remains that does not
    contain the text. The platform refuses forgotten texts if they are sent again. Exit code 1: some of the named
    texts do not exist.
    """
    named = [*(ids or []), *(_read_ids(file) if file else [])]
    if not (named or external_id or list_ or rewrite_snapshots):
        err.print("Name texts by id, --external-id or --file; or give --list.", style="red")
        raise typer.Exit(2)
    if list_:
        show_requests(named)
    elif lift_:
        _lift(named)
    elif named or external_id:
        _forget(named, external_id or [], dataset, by or account().name, yes=yes)
    if rewrite_snapshots:
        rewrite_marked()


def _read_ids(file: Path) -> list[UUID]:
    """Return the ids in a file: one in each line, or the column `id` of a table."""
    found = []
    for number, word in _read_words(file):
        if word:
            try:
                found.append(UUID(word))
            except ValueError:
                fail(f"{file}:{number}: not the id of a text")
    return found


def _read_words(file: Path) -> Iterator[tuple[int, str]]:
    # Here: `annotate status` uses this module and reads no tables.
    from core.tables.opening import kind_of_file, open_file, read_columns
    from core.web.problems import Problem

    with file.open("rb") as lines:
        first = lines.read(_FIRST_BYTES)
    if kind_of_file(file) is None or _ID_LINE.match(first):
        lines_of_ids = first.decode(errors="replace") if len(first) < _FIRST_BYTES else file.read_text()
        yield from ((number, line.strip()) for number, line in enumerate(lines_of_ids.splitlines(), 1))
        return
    try:
        with open_file(file) as table:
            for number, row in read_columns(table, required=["id"]):
                cell = row.get("id") if isinstance(row, dict) else None
                yield number, str(cell or "not an id")
    except Problem as problem:
        fail(f"{file}: {printable(problem.detail)}")


def _forget(ids: Sequence[UUID], external_ids: Sequence[str], dataset: str | None, by: str, *, yes: bool) -> None:
    with addresses.transaction("forget") as connection:
        connection.execute(_TAKE_TIME)
        texts, missing = _find(connection, ids, external_ids, dataset)
        twins = list(connection.scalars(_TWINS, {"ids": [row.id for row in texts]}))
    for what in missing:
        err.print(f"There is no {what} to forget.", style="red")
    if texts:
        _show(texts, twins)
        if not yes:
            typer.confirm(f"Forget {len(texts):,} texts for good?", abort=True)
        out.print(f"{len(_forget_rows(texts, external_ids, by)):,} texts are forgotten in Postgres.")
        out.print("What is left to do follows by itself: see `annotate forget --list`.")
    if missing:
        raise typer.Exit(1)


def _forget_rows(texts: Sequence[Any], external_ids: Sequence[str], by: str) -> list[UUID]:
    names = {row.id: row.dataset for row in texts}
    words = {*external_ids, *(row.external_id for row in texts if row.external_id)}
    with addresses.transaction("forget") as connection:
        connection.execute(_TAKE_TIME)
        traces = find_traces(connection, names, words)
    with addresses.transaction("forget") as connection:
        forgotten = forget_texts(connection, list(names), traces, by)
        note(connection, Action.TEXTS_FORGOTTEN, forgotten, datasets=sorted({names[id_] for id_ in forgotten}))
    with addresses.transaction("forget") as connection:
        connection.execute(_TAKE_TIME)
        forget_values(connection)
    return forgotten


def _find(
    connection: Connection, ids: Sequence[UUID], external_ids: Sequence[str], dataset: str | None
) -> tuple[list[Any], list[str]]:
    """Return the texts to forget with their copies, and a name for each text that was not found."""
    chosen = set(connection.scalars(_BY_ID, {"ids": list(ids)}))
    if external_ids:
        chosen |= set(connection.scalars(_BY_EXTERNAL_ID, {"external_ids": list(external_ids)}))
    texts = _rows(connection, chosen)
    if dataset is None:
        texts |= _rows(connection, _elsewhere(connection, texts.values()))
    else:
        texts = {id_: row for id_, row in texts.items() if row.dataset == dataset}
    copies = {row.id: row for row in connection.execute(_COPIES, {"ids": list(texts)})}
    found = texts | copies
    missing = [f"text {id_}" for id_ in ids if id_ not in found]
    held = {row.external_id for row in found.values()}
    missing += [f"text with the external id {word!r}" for word in external_ids if word not in held]
    return list(found.values()), missing


def _rows(connection: Connection, ids: Iterable[UUID]) -> dict[UUID, Any]:
    return {row.id: row for row in connection.execute(_TEXTS, {"ids": list(ids)})}


def _elsewhere(connection: Connection, texts: Iterable[Any]) -> list[UUID]:
    """Return the ids that the same texts have in other datasets."""
    defined = load_datasets(read_settings(DatasetsFileSettings).datasets_file)
    names = {*connection.scalars(text("select name from datasets")), *defined, *map(adjudication_of, defined)}
    return [text_id(name, row.text) for row in texts for name in names if name != row.dataset]


def _show(texts: Sequence[Any], twins: Sequence[UUID]) -> None:
    table = list_table("id", "dataset", "status", "text")
    for row in texts[:_SHOWN_TEXTS]:
        table.add_row(str(row.id), plain(row.dataset), row.status, plain(row.text, SHORT_CHARACTERS))
    err.print(table)
    if len(texts) > _SHOWN_TEXTS:
        err.print(f"… and {len(texts) - _SHOWN_TEXTS:,} more")
    if twins:
        shown = ", ".join(map(str, twins[:_SHOWN_TEXTS])) + (", …" if len(twins) > _SHOWN_TEXTS else "")
        err.print(f"{len(twins):,} texts that are nearly the same stay: {shown}")


def _lift(ids: Sequence[UUID]) -> None:
    with addresses.transaction("forget") as connection:
        lifted = lift(connection, ids)
        note(connection, Action.TEXTS_LIFTED, lifted)
    out.print(f"{len(lifted):,} texts may be sent again.")
    if others := [id_ for id_ in ids if id_ not in lifted]:
        fail("\n".join(f"{id_} is not forgotten everywhere yet, or was not to be." for id_ in others))


_REQUESTS = text("""
select * from forget_requests where text_id = any(:ids) or cardinality(cast(:ids as uuid[])) = 0
order by requested_at, text_id
""")

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
    table = list_table("id", "dataset", "by", "postgres", "imports", "argilla", "replica", "snapshots", "lifted")
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
    alert_seconds = read_settings(ForgetSettings).alert_seconds
    return [
        f"forgetting of {row.text_id} in {row.dataset} is not complete: {row.argilla_note or name_steps(row)}"
        for row in connection.execute(_STUCK, {"alert_seconds": alert_seconds})
    ]


def look_if_waited_for(connection: Connection) -> None:
    """Store the serving API's progress, if a request waits for it."""
    if waits_for_files(connection):
        _look(connection)


def _look(connection: Connection) -> None:
    try:
        seen = _read_forgotten()
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


def _read_forgotten() -> dict[str, Any]:
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
    while (seen := _read_forgotten())["version"] < version:
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
