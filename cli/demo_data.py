"""`annotate demo-data`: synthetic labelled texts for trials and benchmarks, written straight into Postgres."""

import secrets
from contextlib import closing
from importlib.resources import files
from typing import Annotated

import typer
from rich.progress import track
from sqlalchemy import Connection, text

from cli import addresses
from cli.accounts import Accounts, AccountsError
from cli.console import err, fail, out, printable
from core.database import make_engine
from core.datasets import DEFAULT_DATASET
from core.models import TextStatus

SOURCE = "demo-data"
_CHUNK_TEXTS = 50_000
_PASSWORD_BYTES = 18
_OTHERS = """
select exists (select from texts where source is distinct from :source and status <> 'forgotten')
"""


def demo_data(
    texts: Annotated[int, typer.Option(min=1, help="Number of texts.")],
    annotators: Annotated[int, typer.Option(min=1, max=20, help="Annotators; each answers every text.")] = 3,
    argilla: Annotated[
        bool,
        typer.Option(
            "--argilla", help="Create the annotators in Argilla and have the uploader upload texts and answers."
        ),
    ] = False,
) -> None:
    """Fill an empty database with labelled texts; the same numbers make the same texts, votes and labels.

    Argilla stays empty, unless --argilla is given.
    """
    engine = make_engine(addresses.database(), "annotate demo-data")
    with engine.begin() as connection:
        _refuse_other_texts(connection)
    if argilla:
        _create_annotators(annotators)
    statements = _statements()
    for first in track(range(1, texts + 1, _CHUNK_TEXTS), "Writing", console=err):
        values = {
            "first": first,
            "last": min(first + _CHUNK_TEXTS - 1, texts),
            "annotators": annotators,
            "dataset": DEFAULT_DATASET,
            "source": SOURCE,
            "status": (TextStatus.PENDING if argilla else TextStatus.DEMO).value,
        }
        with engine.begin() as connection:
            for statement in statements:
                connection.execute(text(statement), values)
    out.print(f"There are {texts:,} labelled texts with answers of {annotators} annotators.")
    if argilla:
        out.print("The uploader brings them to Argilla, about 100 a second: see `annotate status`.")
    else:
        out.print("Argilla stays empty: these texts are not uploaded. To upload them, add --argilla.")


def _create_annotators(count: int) -> None:
    """Create `annotator_1` to `annotator_<count>`, so that their answers can be restored in Argilla."""
    settings = addresses.argilla()
    try:
        with closing(Accounts(settings)) as accounts:
            workspace_id = accounts.get_workspace(settings.workspace)
            for number in range(1, count + 1):
                name = f"annotator_{number}"
                # `annotate annotators add NAME --reset-password` makes a password that is known.
                password = secrets.token_urlsafe(_PASSWORD_BYTES)
                user = accounts.find_user(name) or accounts.create_annotator(name, name, password)
                accounts.join(workspace_id, user)
    except AccountsError as error:
        fail(printable(str(error)))


def _refuse_other_texts(connection: Connection) -> None:
    others = text(_OTHERS)
    if connection.execute(others, {"source": SOURCE}).scalar_one():
        fail("This database holds other texts. Demo data goes into an empty one only.")


def _statements() -> list[str]:
    script = files("cli").joinpath("demo_data.sql").read_text()
    return [statement for statement in script.split(";\n") if statement.strip()]
