"""`annotate status`: the queue, the labels, the time left, and problems."""

import time
from dataclasses import dataclass, field
from typing import Annotated, Any

import httpx
import typer
from rich.table import Table
from sqlalchemy import Connection, text
from sqlalchemy.exc import SQLAlchemyError

from cli import addresses
from cli.console import AsJson, err, out, print_json, printable
from cli.forget import list_stuck, look_if_waited_for

# The newest labels: the index of the change feed finds them, however many there are.
_PACE = text("""
select count(*) filter (where labelled_at > now() - interval '1 hour'),
    least(3600, extract(epoch from now() - min(labelled_at)))::float8
from (
    select labelled_at from labels where status <> 'withdrawn' order by changed_xid desc limit 1000
) as newest
""")


@dataclass
class _Report:
    """The state of the platform at one time."""

    queue: dict[str, Any] = field(default_factory=dict)
    stats: dict[str, Any] = field(default_factory=dict)
    labels_per_hour: float | None = None
    seconds_left: float | None = None  # until all texts have all wanted answers, at this pace
    problems: list[str] = field(default_factory=list)
    outages: dict[str, tuple[str, list[str]]] = field(default_factory=dict)  # reason and programs, by dependency

    def add_outage(self, dependency: str, reason: str, program: str) -> None:
        """Note that a program misses a dependency; one that several programs miss is one outage."""
        self.outages.setdefault(dependency, (reason, []))[1].append(program)

    def as_json(self) -> dict[str, Any]:
        """Return it for programs."""
        labels = {name: self.stats.get(name) for name in ("by_label", "by_status", "replica_age_seconds")}
        pace = {"labels_per_hour": self.labels_per_hour, "seconds_left": self.seconds_left}
        return {"queue": self.queue, "labels": labels, **pace, "problems": self.problems}


def status(
    as_json: AsJson = False,
    watch: Annotated[float | None, typer.Option(min=0.1, help="Repeat it after this number of seconds.")] = None,
) -> None:
    """Show the queue, the labels, the time left, and problems.

    A problem is an unreachable part, a blocked job or an overdue forget request. The time left is an estimate at
    the pace of the last hour. Exit code 1: there are problems.
    """
    while True:
        report = _look()
        if as_json:
            print_json(report.as_json(), indent=2 if watch is None else None)
        else:
            _show(report)
        if watch is None:
            break
        time.sleep(watch)
    if report.problems:
        raise typer.Exit(1)


def _look() -> _Report:
    report = _Report()
    report.queue = _get(report, "ingestion API", addresses.ingestion_url(), "queue")
    report.stats = _get(report, "serving API", addresses.serving_url(), "stats")
    late = _read_database(report)
    report.problems += [f"{need}: {reason} ({', '.join(seen)})" for need, (reason, seen) in report.outages.items()]
    for alert in report.queue.pop("alerts", []):
        report.problems.append(
            f"dataset {alert['dataset']}, since {alert['since']}: {alert['reason']} ({alert['code']})"
        )
    report.problems += late
    if report.labels_per_hour and report.queue:
        left: int = sum(report.queue[name] for name in ("pending", "uploading", "open_records"))
        report.seconds_left = 3600 * left / report.labels_per_hour
    return report


def _get(report: _Report, program: str, url: str, path: str) -> dict[str, Any]:
    """Ask a program for its missing dependencies, and return its response; nothing if it fails."""
    try:
        ready = httpx.get(f"{url}/readyz", timeout=5)
    except httpx.TransportError as error:
        report.problems.append(f"{program} at {url} does not answer: {error}")
        return {}
    for dependency, reason in ready.json()["missing"].items():
        report.add_outage(dependency, reason, program)
    try:
        answer = httpx.get(f"{url}/{path}", headers=addresses.headers(), timeout=10)
        answer.raise_for_status()
    except httpx.HTTPError as error:
        if not report.outages:  # otherwise the outage is the cause
            report.problems.append(f"{url}/{path}: {error}")
        return {}
    values: dict[str, Any] = answer.json()
    return values


def _read_database(report: _Report) -> list[str]:
    """Read the pace; return a line for each overdue forget request."""
    if not addresses.knows_database():
        return []
    try:
        with addresses.transaction("status") as connection:
            report.labels_per_hour = _measure_pace(connection)
            look_if_waited_for(connection)
            return list_stuck(connection)
    except SQLAlchemyError as error:  # its message contains the statement
        report.add_outage("database", f"Postgres does not answer: {type(error).__name__}", "annotate")
        return []


def _measure_pace(connection: Connection) -> float:
    """Return how many texts were labelled per hour, over the last hour or the last 1,000 labels."""
    count, seconds = connection.execute(_PACE).one()
    return 3600 * count / max(seconds, 1.0) if count else 0.0


def _show(report: _Report) -> None:
    table = Table("what", "how much", title="Annotation platform")
    for name, value in (_numbers(report.queue) | _labels(report)).items():
        table.add_row(name, value)
    out.print(table)
    for line in map(printable, report.problems):
        err.print(line, style="red")


def _numbers(queue: dict[str, Any]) -> dict[str, str]:
    return {name.replace("_", " "): "-" if n is None else f"{n:,g}" for name, n in queue.items()}


def _labels(report: _Report) -> dict[str, str]:
    stats = report.stats
    rows = {f"label {name}": f"{count:,}" for name, count in stats.get("by_label", {}).items()}
    rows |= {f"status {name}": f"{count:,}" for name, count in stats.get("by_status", {}).items()}
    if (age := stats.get("replica_age_seconds")) is not None:
        rows["replica age seconds"] = f"{age:.1f}"
    if report.labels_per_hour is not None:
        rows["labelled per hour"] = f"{report.labels_per_hour:,.0f}"
    if report.seconds_left is not None:
        rows["time left at this pace"] = _written(report.seconds_left)
    return rows


def _written(seconds: float) -> str:
    hours, minutes = divmod(round(seconds / 60), 60)
    days, hours = divmod(hours, 24)
    return f"{days} d {hours} h" if days else f"{hours} h {minutes} min"
