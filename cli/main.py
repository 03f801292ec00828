"""The commands of `annotate`."""

import sys

import psycopg
import typer
from sqlalchemy.exc import OperationalError, ProgrammingError

from cli import annotators, gold, import_jobs, keys, snapshot, uploads
from cli.audit import audit
from cli.backup import commands as backup
from cli.console import err, printable
from cli.demo_data import demo_data
from cli.export import export
from cli.forget import forget
from cli.forget_snapshots import rewrite
from cli.ingest import ingest
from cli.status import status
from cli.verify import verify
from core.os_process import keep_files_private

app = typer.Typer(
    help="Hand in texts, watch them being labelled, get the labels.",
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,
)
app.command()(ingest)
app.command()(export)
app.command()(forget)
app.command()(audit)
app.command()(status)
app.command()(backup.restore)
app.command("demo-data")(demo_data)
app.add_typer(annotators.app, name="annotators")
app.add_typer(backup.app, name="backup")
app.add_typer(gold.app, name="gold")
app.add_typer(import_jobs.app, name="imports")
app.add_typer(keys.app, name="keys")
app.add_typer(snapshot.app, name="snapshot")
app.add_typer(uploads.app, name="uploads")
snapshot.app.command()(rewrite)
uploads.app.command()(verify)


def main() -> None:
    """Run the command that the arguments name.

    Raises:
        SystemExit: with exit code 1 and a line that says why, also when Postgres does not answer.
    """
    # Exports, rejects and back-ups hold texts.
    keep_files_private()
    try:
        app()
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
