"""The commands of `annotate`."""

import typer

from cli import annotators, gold, keys, uploads
from cli.demo_data import demo_data
from cli.ingest import ingest
from cli.status import status
from cli.verify import verify

app = typer.Typer(
    help="Hand in texts, watch them being labelled, get the labels.",
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,
)
app.command()(ingest)
app.command()(status)
app.command("demo-data")(demo_data)
app.add_typer(annotators.app, name="annotators")
app.add_typer(gold.app, name="gold")
app.add_typer(keys.app, name="keys")
app.add_typer(uploads.app, name="uploads")
uploads.app.command()(verify)


def main() -> None:
    """Run the command that the arguments name."""
    app()
