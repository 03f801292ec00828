"""`annotate imports`: the imports that the ingestion API runs."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any
from uuid import UUID

import httpx
import typer
from rich.table import Table

from cli import addresses
from cli.console import err, fail, out, printable
from cli.texts import import_client

app = typer.Typer(help="Files that were handed in: list, show, cancel.", no_args_is_help=True)

_COUNTS = ("received", "accepted", "duplicates", "rejected")


@contextmanager
def _api() -> Iterator[import_client.Api]:
    try:
        with httpx.Client(base_url=addresses.ingestion_url(), headers=addresses.headers(), timeout=60) as client:
            yield import_client.Api(client, lambda: err.print("waiting for the API"))
    except (import_client.Refused, httpx.HTTPError, httpx.InvalidURL) as error:
        fail(str(error))


@app.command("list")
def list_imports(
    state: Annotated[
        str | None, typer.Option(help="Of one state: receiving, waiting, running, done or failed.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="Imports at most.")] = 20,
) -> None:
    """Show the imports, newest first."""
    parameters: dict[str, Any] = {"limit": limit} | ({"state": state} if state else {})
    with _api() as api:
        found = api.request("GET", "/imports", params=parameters).json()["items"]
    table = Table("id", "created", "state", *_COUNTS)
    for item in found:
        counts = (f"{item[name]:,}" for name in _COUNTS)
        table.add_row(item["id"], item["created_at"][:19].replace("T", " "), item["state"], *counts)
    out.print(table)


@app.command()
def show(id_: Annotated[UUID, typer.Argument(metavar="ID")]) -> None:
    """Show one import: how far it has come, and why rows were rejected."""
    with _api() as api:
        found = api.request("GET", f"/imports/{id_}").json()
    table = Table(show_header=False)
    upload, progress = found["upload"], found["progress"]
    parameters = "&".join(f"{name}={value}" for name, value in found["parameters"].items())
    for name, value in (
        ("state", found["state"]),
        ("read as", f"{found['media_type']}, {parameters}"),
        ("created", found["created_at"]),
        ("finished", found["finished_at"] or "not yet"),
        ("uploaded", f"{upload['offset']:,} of {upload['length'] or 0:,} bytes"),
        ("rows", f"{progress['rows']:,}"),
        *((name, f"{found[name]:,}") for name in _COUNTS),
    ):
        table.add_row(name, printable(value))
    out.print(table)
    for line in import_client.describe_groups(found["error_groups"]):
        err.print(printable(line), soft_wrap=True)
    if found["problem"]:
        err.print(import_client.explain(found["problem"]), style="red", soft_wrap=True)


@app.command()
def cancel(id_: Annotated[UUID, typer.Argument(metavar="ID")]) -> None:
    """Stop an import and forget it. Rows that are stored stay."""
    with _api() as api:
        api.request("DELETE", f"/imports/{id_}")
    out.print(f"{id_} is stopped. Rows that were stored stay.")
