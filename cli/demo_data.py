"""`annotate demo-data`: synthetic labelled texts straight into Postgres, for trying out and for benchmarks."""

from importlib.resources import files
from typing import Annotated

import typer
from rich.progress import track
from sqlalchemy import Connection, text

from cli import addresses
from cli.console import err, fail, out
from core.database import make_engine
from core.datasets import DEFAULT_DATASET

SOURCE = "demo-data"
_CHUNK_TEXTS = 50_000
_OTHERS = """
select exists (select from texts where source is distinct from :source and status <> 'forgotten')
"""


def demo_data(
    texts: Annotated[int, typer.Option(min=1, help="Texts that there shall be.")],
    annotators: Annotated[int, typer.Option(min=1, max=20, help="Annotators; each answers every text.")] = 3,
) -> None:
    """Fill an empty database with labelled texts; the same numbers make the same texts, votes and labels."""
    engine = make_engine(addresses.database(), "annotate demo-data")
    with engine.begin() as connection:
        _refuse_other_texts(connection)
    statements = _statements()
    for first in track(range(1, texts + 1, _CHUNK_TEXTS), "Writing", console=err):
        values = {
            "first": first,
            "last": min(first + _CHUNK_TEXTS - 1, texts),
            "annotators": annotators,
            "dataset": DEFAULT_DATASET,
            "source": SOURCE,
        }
        with engine.begin() as connection:
            for statement in statements:
                connection.execute(text(statement), values)
    out.print(f"There are {texts:,} labelled texts with answers of {annotators} annotators.")


def _refuse_other_texts(connection: Connection) -> None:
    others = text(_OTHERS)
    if connection.execute(others, {"source": SOURCE}).scalar_one():
        fail("This database holds other texts. Demo data goes into an empty one only.")


def _statements() -> list[str]:
    script = files("cli").joinpath("demo_data.sql").read_text()
    return [statement for statement in script.split(";\n") if statement.strip()]
