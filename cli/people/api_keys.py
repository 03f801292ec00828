"""`annotate keys`: creates, lists and withdraws API keys, directly in Postgres."""

from typing import Annotated, Any
from uuid import UUID

import typer
from sqlalchemy import func, insert, select, update

from cli import addresses
from cli.console import err, fail, list_table, out
from cli.people.audit_log import note
from core.audit import Action
from core.models import ApiKey
from core.settings import Limit
from core.web.keys import Scope, hash_key, make_key

app = typer.Typer(help="Create, list and withdraw API keys.", no_args_is_help=True)


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="User of the key: a person or a program.")],
    scope: Annotated[list[Scope], typer.Option(metavar="SCOPE", help="ingest, read, snapshot or admin.")],
    requests_per_second: Annotated[
        float | None,
        typer.Option(
            min=0.001, max=1e6, help="Rate limit in each process of an API. Default: the settings' limit."
        ),
    ] = None,
    burst: Annotated[
        int | None,
        typer.Option(
            min=1, max=1_000_000, help="Number of requests that may arrive together. Default: one second's."
        ),
    ] = None,
    dataset: Annotated[
        list[str] | None,
        typer.Option(help="Dataset that the key may use. Default: all."),
    ] = None,
) -> None:
    """Create a key and print it once. The platform stores only its hash."""
    if burst is not None and requests_per_second is None:
        fail("--burst needs --requests-per-second.")
    key = make_key()
    shown: dict[str, Any] = {
        "scopes": sorted({s.value for s in scope}),
        "requests_per_second": requests_per_second,
        "burst": burst,
        "datasets": sorted(set(dataset)) if dataset else None,
    }
    values = {"name": name, "hash": hash_key(key), **shown}
    with addresses.transaction("keys") as connection:
        id_ = connection.execute(insert(ApiKey).values(values).returning(ApiKey.id)).scalar_one()
        note(connection, Action.KEY_CREATED, [id_], name=name, **shown)
    err.print(f"Key {id_} for {name}. It is shown this once:")
    typer.echo(key)


@app.command("list")
def list_keys() -> None:
    """List all keys, without their secrets."""
    table = list_table("id", "name", "scopes", "datasets", "limit", "created", "withdrawn")
    with addresses.transaction("keys") as connection:
        for row in connection.execute(select(ApiKey.__table__).order_by(ApiKey.created_at)):
            withdrawn = f"{row.withdrawn_at:%Y-%m-%d %H:%M}" if row.withdrawn_at else ""
            limit = Limit.of(row.requests_per_second, row.burst)
            shown = f"{limit.requests_per_second:g}/s, {limit.burst} at once" if limit else ""
            made = f"{row.created_at:%Y-%m-%d %H:%M}"
            datasets = "all" if row.datasets is None else " ".join(row.datasets)
            table.add_row(str(row.id), row.name, " ".join(row.scopes), datasets, shown, made, withdrawn)
    out.print(table)


@app.command()
def withdraw(id_: Annotated[UUID, typer.Argument(metavar="ID", help="Id in `annotate keys list`.")]) -> None:
    """Withdraw a key. The APIs refuse it within seconds."""
    statement = update(ApiKey).where(ApiKey.id == id_, ApiKey.withdrawn_at.is_(None))
    with addresses.transaction("keys") as connection:
        changed = connection.execute(statement.values(withdrawn_at=func.now())).rowcount
        if changed:
            note(connection, Action.KEY_WITHDRAWN, [id_])
    if not changed:
        fail(f"There is no valid key {id_}.")
    out.print(f"Key {id_} is withdrawn.")
