"""The commands of `annotate`."""

import sys
from importlib.metadata import version
from typing import Annotated

import psycopg
import typer
from sqlalchemy.exc import OperationalError, ProgrammingError

from cli import dataset_changes, model
from cli.backup import commands as backup
from cli.console import err, out, printable
from cli.demo_data import demo_data
from cli.forget.commands import forget
from cli.forget.rewriting import rewrite
from cli.people import annotators, api_keys, gold
from cli.people.audit_log import audit
from cli.snapshots import commands as snapshots
from cli.status import status
from cli.texts import import_jobs, uploads
from cli.texts.export import export
from cli.texts.ingest import ingest
from cli.texts.verify import verify
from core.os_process import keep_files_private

app = typer.Typer(
    help="Hand in texts, watch them being labelled, get the labels.",
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,
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
    pass


app.command()(ingest)
app.command()(export)
app.command()(forget)
app.command()(audit)
app.command()(status)
app.command()(backup.restore)
app.command("demo-data")(demo_data)
app.add_typer(annotators.app, name="annotators")
app.add_typer(backup.app, name="backup")
app.add_typer(dataset_changes.app, name="datasets")
app.add_typer(gold.app, name="gold")
app.add_typer(import_jobs.app, name="imports")
app.add_typer(api_keys.app, name="keys")
app.add_typer(model.app, name="model")
app.add_typer(model.suspects, name="suspects")
app.add_typer(snapshots.app, name="snapshot")
app.add_typer(uploads.app, name="uploads")
snapshots.app.command()(rewrite)
uploads.app.command()(verify)


def main() -> None:
    """Run the command that the arguments name.

    Raises:
        SystemExit: with exit code 1 and a line that says why, also when Postgres does not answer.
    """
    # Exports, rejects and back-ups hold texts.
    keep_files_private()
    try:
        # Also when it runs as `python -m cli`: usage and completion name the program that users call.
        app(prog_name="annotate")
    except ProgrammingError as error:
        if not isinstance(error.orig, psycopg.errors.UndefinedTable | psycopg.errors.UndefinedColumn):
            raise
        words = (
            "The database does not have this release's tables: run `python -m core.migrate` with its DATABASE_URL."
        )
        err.print(words, style="red")
        sys.exit(1)
    except (psycopg.OperationalError, OperationalError) as error:
        # Not all of SQLAlchemy's words: they hold the statement.
        words = " ".join(str(error.orig if isinstance(error, OperationalError) else error).split())
        err.print(f"Postgres does not answer: {printable(words)}", style="red")
        sys.exit(1)
