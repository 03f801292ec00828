"""`annotate datasets`: compares DATASETS_FILE with the settings that are in force, and applies it."""

from collections.abc import Iterator
from typing import Annotated, Any, NamedTuple

import typer
from rich.table import Table
from sqlalchemy import select, update

from cli import addresses
from cli.console import SHORT_CHARACTERS, AsJson, fail, out, plain, print_json
from cli.people.audit_log import note
from core.audit import Action
from core.datasets import Datasets, get_definition, list_adjudications, load_datasets
from core.models import DatasetRow
from core.settings import DatasetsFileSettings, read_settings

app = typer.Typer(help="Compare DATASETS_FILE with the settings in force, and apply it.", no_args_is_help=True)


class _Change(NamedTuple):
    dataset: str
    setting: str
    in_force: Any
    defined: Any
    needs_apply: bool  # the definition asks annotators for less, so none of it is applied


@app.command()
def diff(as_json: AsJson = False) -> None:
    """Show the settings in DATASETS_FILE that differ from those in force.

    Exit code 1: there are differences.
    """
    datasets = load_datasets(read_settings(DatasetsFileSettings).datasets_file)
    changes = list(_compare(_read_in_force(), datasets))
    if as_json:
        print_json({"changes": [change._asdict() for change in changes]})
    else:
        _show(changes)
    if changes:
        raise typer.Exit(1)


def _read_in_force() -> dict[str, dict[str, Any]]:
    query = (
        select(DatasetRow.name, DatasetRow.settings)
        .where(DatasetRow.settings.is_not(None))
        .order_by(DatasetRow.name)
    )
    with addresses.transaction("datasets") as connection:
        return {row.name: row.settings for row in connection.execute(query)}


def _compare(in_force: dict[str, dict[str, Any]], datasets: Datasets) -> Iterator[_Change]:
    for name in _names(datasets):
        defined = get_definition(name, datasets).model_dump(mode="json")
        held = in_force.get(name)
        if held is None:
            yield _Change(name, "dataset", None, "defined", needs_apply=False)
            continue
        is_lower = defined["answers_wanted"] < held.get("answers_wanted", 0)
        for setting, value in defined.items():
            if setting in held and held[setting] != value:
                yield _Change(name, setting, held[setting], value, is_lower)
    for name in in_force.keys() - set(_names(datasets)):
        yield _Change(name, "dataset", "defined", None, needs_apply=False)


def _names(datasets: Datasets) -> list[str]:
    return [*datasets, *list_adjudications(datasets)]


def _show(changes: list[_Change]) -> None:
    if not changes:
        out.print("DATASETS_FILE and the settings in force are the same.")
        return
    table = Table("dataset", "setting", "in force", "in DATASETS_FILE", "applied")
    for change in changes:
        shown = (plain("-" if value is None else str(value), SHORT_CHARACTERS) for value in change[2:4])
        how = (
            f"by `annotate datasets apply {change.dataset}`" if change.needs_apply else "when the uploader starts"
        )
        table.add_row(plain(change.dataset), change.setting, *shown, how)
    out.print(table)


@app.command()
def apply(name: Annotated[str, typer.Argument(metavar="DATASET", help="Dataset in DATASETS_FILE.")]) -> None:
    """Apply a definition that asks annotators for fewer answers than the one in force.

    The uploader applies other changes without this command, when it starts.
    """
    datasets = load_datasets(read_settings(DatasetsFileSettings).datasets_file)
    if name not in _names(datasets):
        fail(f"DATASETS_FILE does not define {name}: it defines {', '.join(_names(datasets))}.")
    defined = get_definition(name, datasets).model_dump(mode="json")
    with addresses.transaction("datasets") as connection:
        statement = update(DatasetRow).where(DatasetRow.name == name).values(settings_approved=defined)
        if connection.execute(statement).rowcount == 0:
            fail(f"No uploader has worked on {name} yet: its settings are applied when one starts.")
        note(connection, Action.SETTINGS_APPROVED, [name], answers_wanted=defined["answers_wanted"])
    out.print(f"A running uploader that has the same definition of {name} applies it within seconds.")
