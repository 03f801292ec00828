"""`annotate status`: how much waits where, and how fresh the labels are."""

from typing import Any

import httpx
import typer
from rich.table import Table
from sqlalchemy.exc import SQLAlchemyError

from cli import addresses
from cli.console import err, out, printable
from cli.forget.requests import list_stuck, look_if_waited_for
from core.database import make_engine


def status() -> None:
    """Show the queue, the labels, and what is missing or blocked. Exit code 1: something is."""
    late = _forgetting()
    ingestion, serving = addresses.ingestion_url(), addresses.serving_url()
    missing = [*_missing("ingestion API", ingestion), *_missing("serving API", serving)]
    queue = _get(f"{ingestion}/queue")
    missing += [
        f"dataset {alert['dataset']}, since {alert['since']}: {alert['reason']} ({alert['code']})"
        for alert in queue.pop("alerts", [])
    ]
    missing += late
    table = Table("what", "how much", title="Annotation platform")
    for name, value in (_numbers(queue) | _labels(f"{serving}/stats")).items():
        table.add_row(name, value)
    out.print(table)
    for line in map(printable, missing):
        err.print(line, style="red")
    if missing:
        raise typer.Exit(1)


def _forgetting() -> list[str]:
    """Return which texts are not forgotten everywhere although they should be, after a look at the serving API."""
    if not addresses.knows_database():
        return []
    engine = make_engine(addresses.database(), "annotate status")
    try:
        with engine.begin() as connection:
            look_if_waited_for(connection)
            return list_stuck(connection)
    except SQLAlchemyError as error:  # without its words, which hold the statement
        return [f"Postgres cannot tell what is being forgotten: {type(error).__name__}"]
    finally:
        engine.dispose()


def _missing(name: str, url: str) -> list[str]:
    try:
        answer = httpx.get(f"{url}/readyz", timeout=5)
    except httpx.TransportError as error:
        return [f"{name} at {url} does not answer: {error}"]
    return [f"{name}: {need}: {reason}" for need, reason in answer.json()["missing"].items()]


def _get(url: str) -> dict[str, Any]:
    try:
        answer = httpx.get(url, headers=addresses.headers(), timeout=10)
        answer.raise_for_status()
    except httpx.HTTPError as error:
        err.print(f"{url}: {error}", style="red")
        return {}
    values: dict[str, Any] = answer.json()
    return values


def _numbers(queue: dict[str, Any]) -> dict[str, str]:
    return {name.replace("_", " "): "-" if n is None else f"{n:,g}" for name, n in queue.items()}


def _labels(url: str) -> dict[str, str]:
    stats = _get(url)
    rows = {f"label {name}": f"{count:,}" for name, count in stats.get("by_label", {}).items()}
    rows |= {f"status {name}": f"{count:,}" for name, count in stats.get("by_status", {}).items()}
    if (age := stats.get("replica_age_seconds")) is not None:
        rows["replica age seconds"] = f"{age:.1f}"
    return rows
