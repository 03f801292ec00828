"""`annotate gold`: texts with a known answer, which measure annotators. Reads them from a table into Postgres."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any
from uuid import UUID

import typer
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator
from rich.table import Table
from sqlalchemy import Connection, text

from cli import addresses
from cli.console import SHORT_CHARACTERS, fail, out, plain, printable
from cli.people.audit_log import note
from core.audit import Action
from core.datasets import DEFAULT_DATASET, Dataset, load_datasets
from core.models import TextStatus
from core.models.labels import STAMP, wake_readers
from core.settings import DatasetsFileSettings, read_settings
from core.tables.opening import open_file, read_columns
from core.tables.rows import RowRefused, as_word
from core.text_identity import TEXT_BYTES, normalise, text_id
from core.web.problems import Problem


def _storable(value: str) -> str:
    if "\0" in value or (not value.isascii() and any("\ud800" <= c <= "\udfff" for c in value)):
        raise ValueError("has characters that cannot be stored")
    return value


def _text(value: str) -> str:
    text = normalise(_storable(value))
    if not text:
        raise ValueError("is empty")
    if len(text.encode()) > TEXT_BYTES:
        raise ValueError(f"is longer than {TEXT_BYTES} bytes")
    return text


_Words = Annotated[str, Field(min_length=1, max_length=1000), AfterValidator(_storable)]


class GoldRow(BaseModel):
    """A text, or the id of one that is stored, with its known answer."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    label: str
    text: Annotated[str, AfterValidator(_text)] | None = None
    id: UUID | None = None
    claimed_label: str | None = None
    score: float | None = Field(None, ge=0, le=1)
    source: _Words | None = None
    external_id: _Words | None = None

    @model_validator(mode="after")
    def _names_one_text(self) -> "GoldRow":
        if (self.text is None) == (self.id is None):
            raise ValueError("needs either text or id")
        return self

    def text_id(self, dataset: str) -> UUID:
        """Return the id of the text in a dataset."""
        return self.id or text_id(dataset, self.text or "")


Rejects = list[tuple[int, str]]


def read_gold(path: Path, labels: tuple[str, ...]) -> tuple[dict[int, GoldRow], Rejects]:
    """Return the valid rows by number, and the errors of the others.

    Raises:
        OSError, Problem: the file cannot be read, or has other columns.
    """
    rows: dict[int, GoldRow] = {}
    rejects: Rejects = []
    for number, fields in _read(path):
        try:
            rows[number] = _check(fields, labels)
        except (ValueError, RowRefused) as error:
            rejects.append((number, _reasons(error)))
    return rows, rejects


def _read(path: Path) -> Iterator[tuple[int, Any]]:
    with open_file(path) as table:
        yield from read_columns(table, GoldRow.model_fields, required=["label"])


def _check(row: Any, labels: tuple[str, ...]) -> GoldRow:
    if isinstance(row, RowRefused):
        raise row
    if not isinstance(row, Mapping):
        raise RowRefused("not_an_object", "must be an object")
    fields = {name: cell if name == "score" else as_word(cell, name) for name, cell in row.items()}
    gold = GoldRow.model_validate({name: cell for name, cell in fields.items() if cell not in ("", None)})
    for name, label in (("label", gold.label), ("claimed_label", gold.claimed_label)):
        if label not in {None, *labels}:
            raise ValueError(f'{name} "{label}" is not one of {", ".join(labels)}')
    return gold


def _reasons(error: Exception) -> str:
    if not isinstance(error, ValidationError):
        return str(error)
    found = [(".".join(map(str, e["loc"])), e["msg"].removeprefix("Value error, ")) for e in error.errors()]
    return "; ".join(f"{where}: {what}" if where else what for where, what in found)


app = typer.Typer(help="Add, list and remove gold texts: texts with a known answer.", no_args_is_help=True)

_CHUNK_ROWS = 500

# Ordered by id, like the locks of programs that derive labels: no deadlocks.
_LOCK = text("""
select id, gold_label, status from texts where dataset = :dataset and id = any(:ids) order by id for no key update
""")

# -> pending. The received time is near another text's, so annotators cannot recognise a gold text by its time.
_INSERT = text("""
insert into texts (id, dataset, text, claimed_label, score, source, external_id, gold_label, received_at)
values (:id, :dataset, :text, :claimed_label, :score, :source, :external_id, :label, coalesce((
    select received_at - random() * interval '1 minute' from texts
    where id >= (select gen_random_uuid()) and dataset = :dataset and gold_label is null order by id limit 1
), now()))
on conflict (id) do nothing
""")

_SET = text("""
update texts set gold_label = new.label
from unnest(cast(:ids as uuid[]), cast(:labels as text[])) as new (id, label) where texts.id = new.id
""")

_RESTAMP = text(f"update labels set changed_xid = {STAMP} where text_id = any(:ids)")  # noqa: S608 - a constant

_SUMMARY = text("""
select dataset, count(*) as texts, count(*) filter (where status = 'uploaded') as shown,
    count(*) filter (where answers > 0) as answered, sum(answers) as answers, sum(right_answers) as right_answers
from texts cross join lateral (
    select count(*) as answers, count(*) filter (where value = gold_label) as right_answers from annotations
    where text_id = texts.id and annotations.status = 'submitted' and withdrawn_at is null
) as counted
where gold_label is not null and (cast(:dataset as text) is null or dataset = :dataset)
group by dataset order by dataset
""")

_TEXTS = text("""
select id, dataset, status, gold_label, text from texts
where gold_label is not null and (cast(:dataset as text) is null or dataset = :dataset)
order by dataset, sequence limit :limit
""")

_REMOVE = text("update texts set gold_label = null where id = any(:ids) and gold_label is not null returning id")


@app.command()
def add(
    file: Annotated[
        Path, typer.Argument(exists=True, dir_okay=False, help="CSV, NDJSON, JSON, Parquet or .xlsx file.")
    ],
    dataset: Annotated[str, typer.Option(help="Dataset of the texts.")] = DEFAULT_DATASET,
) -> None:
    """Add gold texts from a file.

    Required columns: label, and text or the id of a stored text. Optional: source, external_id, claimed_label,
    score. New texts are stored. Exit code 1: some rows were rejected; the others are stored.
    """
    definition = load_datasets(read_settings(DatasetsFileSettings).datasets_file).get(dataset)
    if definition is None:
        fail(f"DATASETS_FILE defines no dataset {dataset}.")
    try:
        rows, rejects = read_gold(file, definition.labels)
    except (OSError, Problem) as error:
        fail(f"{file} cannot be read: {error}")
    lines = sorted(rows)
    for first in range(0, len(lines), _CHUNK_ROWS):
        chunk = {line: rows[line] for line in lines[first : first + _CHUNK_ROWS]}
        with addresses.transaction("gold") as connection:
            refused = _store(connection, dataset, definition, chunk)
            stored = chunk.keys() - {line for line, _ in refused}
            ids = [chunk[line].text_id(dataset) for line in stored]
            note(connection, Action.GOLD_ADDED, ids, dataset=dataset)
        rejects += refused
    out.print(f"{len(rows.keys() - {line for line, _ in rejects}):,} texts are gold.")
    if rejects:
        fail("\n".join(f"row {line}: {printable(reason)}" for line, reason in sorted(rejects)))


def _store(connection: Connection, dataset: str, definition: Dataset, rows: Mapping[int, GoldRow]) -> Rejects:
    """Store rows; return the lines and reasons of those that cannot be stored."""
    ids = {line: row.text_id(dataset) for line, row in rows.items()}
    held, forgotten = _lock(connection, dataset, ids.values())
    missing = {line: row for line, row in rows.items() if ids[line] not in held | forgotten}
    rejects = [(line, reason) for line, row in missing.items() if (reason := _why_not_new(row, definition))]
    rejects += [(line, "was forgotten on request") for line in rows if ids[line] in forgotten]
    refused = {line for line, _ in rejects}
    new = [
        row.model_dump() | {"id": ids[line], "dataset": dataset}
        for line, row in missing.items()
        if line not in refused
    ]
    if new:
        connection.execute(_INSERT, sorted(new, key=lambda values: values["id"]))
    _set(connection, {ids[line]: row.label for line, row in rows.items() if line not in refused}, held)
    return rejects


def _lock(connection: Connection, dataset: str, ids: Any) -> tuple[dict[UUID, str | None], dict[UUID, None]]:
    """Lock the texts; return the known answers of stored texts, and the forgotten texts."""
    rows = connection.execute(_LOCK, {"dataset": dataset, "ids": list(ids)}).all()
    forgotten = {row.id: None for row in rows if row.status == TextStatus.FORGOTTEN}
    return {row.id: row.gold_label for row in rows if row.id not in forgotten}, forgotten


def _why_not_new(row: GoldRow, definition: Dataset) -> str | None:
    if row.text is None:
        return "there is no text with this id in the dataset"
    if definition.enriches or definition.near_duplicates != "off":
        return "is not stored, and this dataset changes texts at intake: send it to the API first, or name its id"
    return None


def _set(connection: Connection, labels: Mapping[UUID, str], held: Mapping[UUID, str | None]) -> None:
    changed = [id_ for id_, label in labels.items() if held.get(id_) != label]
    connection.execute(_SET, {"ids": changed, "labels": [labels[id_] for id_ in changed]})
    _tell(connection, changed)


def _tell(connection: Connection, ids: Sequence[UUID]) -> None:
    """Write the texts' labels into the change feed again."""
    if connection.execute(_RESTAMP, {"ids": list(ids)}).rowcount:
        wake_readers(connection)


@app.command("list")
def list_gold(
    dataset: Annotated[str | None, typer.Option(help="Only texts of this dataset.")] = None,
    texts: Annotated[bool, typer.Option("--texts", help="List the texts with their ids.")] = False,
    limit: Annotated[int, typer.Option(min=1, help="Maximum number of texts.")] = 50,
) -> None:
    """Show numbers of gold texts: all, shown to annotators, answered; and the share of right answers."""
    with addresses.transaction("gold") as connection:
        out.print(_texts(connection, dataset, limit) if texts else _summary(connection, dataset))


def _summary(connection: Connection, dataset: str | None) -> Table:
    table = Table("dataset", "texts", "shown", "answered", "answers", "right")
    for row in connection.execute(_SUMMARY, {"dataset": dataset}):
        right = f"{row.right_answers / row.answers:.1%}" if row.answers else "-"
        table.add_row(row.dataset, *(f"{n:,}" for n in (row.texts, row.shown, row.answered, row.answers)), right)
    return table


def _texts(connection: Connection, dataset: str | None, limit: int) -> Table:
    table = Table("id", "dataset", "status", "label", "text")
    for row in connection.execute(_TEXTS, {"dataset": dataset, "limit": limit}):
        table.add_row(str(row.id), row.dataset, row.status, row.gold_label, plain(row.text, SHORT_CHARACTERS))
    return table


@app.command()
def remove(
    ids: Annotated[list[UUID], typer.Argument(metavar="ID...", help="Ids in `annotate gold list --texts`.")],
) -> None:
    """Make gold texts ordinary texts.

    Exit code 1: some of the named texts are not gold.
    """
    with addresses.transaction("gold") as connection:
        removed = {row.id for row in connection.execute(_REMOVE, {"ids": ids})}
        _tell(connection, list(removed))
        note(connection, Action.GOLD_REMOVED, removed)
    out.print(f"{len(removed):,} texts are not gold any more.")
    if others := [id_ for id_ in ids if id_ not in removed]:
        fail("\n".join(f"There is no gold text {id_}." for id_ in others))
