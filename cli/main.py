"""The commands of `annotate`.

The module of a command is imported when the command runs, or completes its own options. All modules together take
seconds to import, so `annotate --help` and Tab would be slow.
"""

import sys
from importlib import import_module
from importlib.metadata import version
from typing import Annotated, Any, NamedTuple

import typer
from typer.core import TyperGroup

from cli.console import err, out, printable


class _Command(NamedTuple):
    where: str  # module:name of a function, or of a Typer that groups commands
    help: str  # the first sentence of its own help


COMMANDS = {
    "ingest": _Command("cli.texts.ingest:ingest", "Send files of texts to the platform."),
    "imports": _Command("cli.texts.file_imports:app", "List, show and cancel imports of files."),
    "export": _Command("cli.texts.export:export", "Save labelled texts as Parquet, Arrow, NDJSON or CSV."),
    "snapshot": _Command("cli.snapshot:app", "Create, list, compare, verify and delete snapshots."),
    "model": _Command("cli.model:app", "Train, list, show, activate and evaluate the models of a dataset."),
    "suspects": _Command("cli.model:suspects", "Ask again about labels that the model doubts."),
    "status": _Command("cli.status:status", "Show the queue, the labels, the time left, and problems."),
    "uploads": _Command("cli.texts.uploads:app", "List, show, retry and verify uploads to Argilla."),
    "datasets": _Command(
        "cli.dataset_changes:app", "Compare DATASETS_FILE with the settings in force, and apply it."
    ),
    "annotators": _Command("cli.people.annotators:app", "Add, list and remove annotators' accounts in Argilla."),
    "gold": _Command("cli.people.gold:app", "Add, list and remove gold texts: texts with a known answer."),
    "keys": _Command("cli.people.api_keys:app", "Create, list and withdraw API keys."),
    "audit": _Command("cli.people.audit_log:audit", "Show the audit log: which administrator did what, and when."),
    "forget": _Command("cli.forget:forget", "Delete texts everywhere, for good."),
    "backup": _Command("cli.backup.commands:app", "Create and verify archives of all data."),
    "restore": _Command("cli.backup.commands:restore", "Restore an archive of `annotate backup`."),
    "demo-data": _Command("cli.demo_data:demo_data", "Fill an empty database with synthetic labelled texts."),
}


class _LoadsOnUse(TyperGroup):
    """A group whose commands are placeholders until one of them is used."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name, command, rest = super().resolve_command(ctx, args)
        return name, load(name) if name else command, rest


def load(name: str) -> Any:
    """Import a command or a group of commands; return it as Typer runs it."""
    module, _, attribute = COMMANDS[name].where.partition(":")
    found = getattr(import_module(module), attribute)
    loaded: Any
    if isinstance(found, typer.Typer):
        # Not `get_command`: that makes a command of a group with a single command.
        loaded = typer.main.get_group(found)
    else:
        single = typer.Typer(add_completion=False)
        single.command(name)(found)
        loaded = typer.main.get_command(single)
    loaded.name = name
    _unwrap_help(loaded)
    return loaded


def _unwrap_help(command: Any) -> None:
    """Put each paragraph of the help on one line: Typer keeps the line ends of the source."""
    if command.help:
        command.help = "\n\n".join(" ".join(paragraph.split()) for paragraph in command.help.split("\n\n"))
    for subcommand in getattr(command, "commands", {}).values():
        _unwrap_help(subcommand)


app = typer.Typer(
    help="Send texts, watch their progress, and get the labels.",
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,
    cls=_LoadsOnUse,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        out.print(f"annotate {version('annotation-platform')}")
        raise typer.Exit


@app.callback()
def _options(
    _version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    from core.startup import keep_files_private

    # Exports, rejects and backups contain texts.
    keep_files_private()


def _placeholder() -> None:
    raise NotImplementedError


for _name, _command in COMMANDS.items():
    app.command(_name, help=_command.help)(_placeholder)


def main() -> None:
    """Run the command that the arguments name.

    Raises:
        SystemExit: with exit code 1 and a line with the reason, also when Postgres does not answer.
    """
    try:
        # Usage and completion show this name, also for `python -m cli`.
        app(prog_name="annotate")
    except Exception as error:
        reason = _database_problem(error)
        if reason is None:
            raise
        err.print(reason, style="red")
        sys.exit(1)


def _database_problem(error: Exception) -> str | None:
    """Return a line for an error of Postgres that the user can do something about."""
    import psycopg
    from sqlalchemy.exc import OperationalError, ProgrammingError

    missing = (psycopg.errors.UndefinedTable, psycopg.errors.UndefinedColumn)
    if isinstance(error, ProgrammingError) and isinstance(error.orig, missing):
        return (
            "The database does not have this release's tables: run `python -m core.migrate` with its DATABASE_URL."
        )
    if isinstance(error, psycopg.OperationalError | OperationalError):
        # SQLAlchemy's own message contains the statement.
        words = " ".join(str(error.orig if isinstance(error, OperationalError) else error).split())
        return f"Postgres does not answer: {printable(words)}"
    return None
