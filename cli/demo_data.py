"""`annotate demo-data`: writes synthetic labelled texts directly into Postgres, for trials and benchmarks."""

import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files
from typing import Annotated, Any

import typer
from rich.progress import track
from sqlalchemy import Connection, text

from cli import addresses
from cli.argilla_api import open_argilla
from cli.console import err, fail, out
from core.datasets import DEFAULT_DATASET
from core.models import TextStatus

SOURCE = "demo-data"
_CHUNK_TEXTS = 50_000
# Of an empty database: tables without indexes are read in full for each chunk, so that there are few.
_FIRST_CHUNK_TEXTS = 2_000_000
_TABLES = ("texts", "annotations", "labels")
_IS_EMPTY = " and ".join(f"not exists (select from {table})" for table in _TABLES).join(("select ", ""))
_CONSTRAINTS = f"""
select conrelid::regclass::text, quote_ident(conname), pg_get_constraintdef(oid) from pg_constraint
where conrelid::regclass::text in {_TABLES} and contype in ('p', 'u')
"""  # noqa: S608 - constants
# The other partial indexes take none of these rows.
_INDEXES = f"""
select indexrelid::regclass::text, pg_get_indexdef(indexrelid) from pg_index
where indrelid::regclass::text in {_TABLES}
      and (indpred is null or indexrelid::regclass::text = 'ix_texts_uploaded')
"""  # noqa: S608 - constants
_SETTINGS = (
    "set local statement_timeout = 0",
    "set local synchronous_commit = off",
    "set local work_mem = '128MB'",
    "set local maintenance_work_mem = '256MB'",
)
_PASSWORD_BYTES = 18
_OTHERS = """
select exists (select from texts where source is distinct from :source and status <> 'forgotten')
"""


def demo_data(
    texts: Annotated[int, typer.Option(min=1, help="Number of texts.")],
    annotators: Annotated[
        int, typer.Option(min=1, max=20, help="Number of annotators. Each answers every text.")
    ] = 3,
    argilla: Annotated[
        bool,
        typer.Option(
            "--argilla", help="Create the annotators in Argilla, and let the uploader upload texts and answers."
        ),
    ] = False,
) -> None:
    """Fill an empty database with synthetic labelled texts.

    The same numbers create the same texts, answers and labels. Argilla stays empty, unless --argilla is given.
    """
    status = (TextStatus.PENDING if argilla else TextStatus.DEMO).value
    values = {"annotators": annotators, "dataset": DEFAULT_DATASET, "source": SOURCE, "status": status}
    with addresses.transaction("demo-data") as connection:
        _refuse_other_texts(connection)
        if argilla:
            _create_annotators(annotators)
        is_empty = connection.execute(text(_IS_EMPTY)).scalar_one()
        if is_empty:
            _fill_empty(connection, texts, values)
    if not is_empty:
        for chunk in track(_chunks(texts, _CHUNK_TEXTS), "Writing", console=err):
            with addresses.transaction("demo-data") as connection:
                for statement in _statements():
                    connection.execute(text(statement), values | chunk)
    out.print(f"There are {texts:,} labelled texts with answers of {annotators} annotators.")
    if argilla:
        out.print("The uploader brings them to Argilla, about 100 a second: see `annotate status`.")
    else:
        out.print("Argilla stays empty: these texts are not uploaded. To upload them, add --argilla.")


def _create_annotators(count: int) -> None:
    """Create `annotator_1` to `annotator_<count>`, so that their answers can be restored in Argilla."""
    settings = addresses.argilla()
    with open_argilla(settings) as argilla:
        workspace_id = argilla.get_workspace(settings.workspace)
        for number in range(1, count + 1):
            name = f"annotator_{number}"
            # `annotate annotators add NAME --reset-password` makes a password that is known.
            password = secrets.token_urlsafe(_PASSWORD_BYTES)
            user = argilla.find_user(name) or argilla.create_annotator(name, name, password)
            argilla.join(workspace_id, user)


def _chunks(texts: int, size: int) -> list[dict[str, int]]:
    return [{"first": n, "last": min(n + size - 1, texts)} for n in range(1, texts + 1, size)]


def _fill_empty(connection: Connection, texts: int, values: dict[str, Any]) -> None:
    """Write into empty tables without indexes, which are built afterwards: that takes a fifth of the time.

    All in one transaction: others wait until it ends, and see nothing of it if it fails.
    """
    for setting in _SETTINGS:
        connection.execute(text(setting))
    with _without_indexes(connection), err.status("Writing, then building the indexes"):
        for chunk in _chunks(texts, _FIRST_CHUNK_TEXTS):
            for statement in _statements():
                # Nothing can conflict, and without an index nothing could be found to do so.
                without_conflicts = re.sub(r"\non conflict.*", "", statement, flags=re.DOTALL)
                connection.execute(text(without_conflicts), values | chunk)
            connection.execute(text("drop table demo"))


@contextmanager
def _without_indexes(connection: Connection) -> Iterator[None]:
    """Drop the indexes and primary keys of the filled tables, and create them again at the end."""
    constraints = connection.execute(text(_CONSTRAINTS)).all()
    for table, name, _ in constraints:
        connection.execute(text(f"alter table {table} drop constraint {name}"))
    indexes = connection.execute(text(_INDEXES)).all()
    for name, _ in indexes:
        connection.execute(text(f"drop index {name}"))
    yield
    for table, name, definition in constraints:
        connection.execute(text(f"alter table {table} add constraint {name} {definition}"))
    for _, definition in indexes:
        connection.execute(text(definition))
    for table in _TABLES:
        connection.execute(text(f"analyze {table}"))


def _refuse_other_texts(connection: Connection) -> None:
    others = text(_OTHERS)
    if connection.execute(others, {"source": SOURCE}).scalar_one():
        fail("This database holds other texts. Demo data goes into an empty one only.")


def _statements() -> list[str]:
    script = files("cli").joinpath("demo_data.sql").read_text()
    return [statement for statement in script.split(";\n") if statement.strip()]
