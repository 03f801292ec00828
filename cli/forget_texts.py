"""`annotate forget`: deletes texts in Postgres; all other programs follow its requests."""

import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any
from uuid import UUID

import typer
from rich.table import Table
from sqlalchemy import Connection, bindparam, text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.types import Uuid

from cli import addresses
from cli.console import SHORT_CHARACTERS, err, fail, out, plain, printable
from cli.forget_requests import rewrite_marked, show_requests
from cli.people.audit_log import note
from core.audit import Action, account
from core.datasets import adjudication_of, load_datasets
from core.forgetting.repository import forget_values, lift
from core.forgetting.service import find_traces, forget_texts
from core.settings import DatasetsFileSettings, read_settings
from core.tables.opening import kind_of_file, open_file, read_columns
from core.text_identity import text_id
from core.web.problems import Problem

_IDS = bindparam("ids", type_=ARRAY(Uuid))

# The id of an adjudicators' copy means its original. External ids have no index.
_BY_ID = text("""
select coalesce(adjudicates, id) from texts where id = any(:ids) and status <> 'forgotten'
""").bindparams(_IDS)
_BY_EXTERNAL_ID = text("""
select distinct coalesce(adjudicates, id) from texts
where external_id = any(:external_ids) and status <> 'forgotten'
""")
_TEXTS = text("""
select id, dataset, text, external_id, status from texts where id = any(:ids) and status <> 'forgotten' order by id
""").bindparams(_IDS)
_COPIES = text("""
select id, dataset, text, external_id, status from texts
where adjudicates is not null and adjudicates = any(:ids) and status <> 'forgotten' order by id
""").bindparams(_IDS)
_DATASETS = text("select name from datasets")
_TWINS = text("""
select id from texts
where status <> 'forgotten' and id <> all(:ids) and id in (
    select text_id from near_duplicates where twin_id = any(:ids)
    union select twin_id from near_duplicates where text_id = any(:ids)
)
order by id
""").bindparams(_IDS)
# Without an index, Postgres reads whole tables.
_TAKE_TIME = text("set local statement_timeout = 0")

_SHOWN_TEXTS = 20

_FIRST_BYTES = 4096
_ID_LINE = re.compile(rb"\s*[0-9a-fA-F-]{32,36}\s*(?:[\r\n]|$)")


Ids = Annotated[list[UUID] | None, typer.Argument(metavar="[ID]...", help="Texts to forget.")]
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
    names = {*connection.scalars(_DATASETS), *defined, *map(adjudication_of, defined)}
    return [text_id(name, row.text) for row in texts for name in names if name != row.dataset]


def _show(texts: Sequence[Any], twins: Sequence[UUID]) -> None:
    table = Table("id", "dataset", "status", "text")
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
