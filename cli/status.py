"""`annotate status`: the queue, the labels, the time left, and problems."""

import time
from dataclasses import dataclass, field
from typing import Annotated, Any

import httpx
import typer
from rich.table import Table
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from cli import addresses
from cli.console import AsJson, err, out, print_json, printable
from cli.forget import list_stuck, look_if_waited_for

# The newest labels: the index of the change feed finds them, however many there are.
_LABELS = text("""
select count(*) filter (where labelled_at > now() - interval '1 hour'),
    least(3600, extract(epoch from now() - min(labelled_at)))::float8
from (
    select labelled_at from labels where status <> 'withdrawn' order by changed_xid desc limit 1000
) as newest
""")

# The answers to the 1000 texts that were answered last, since the time when the first of them had its last answer:
# other texts have none since.
_ANSWERS = text("""
with newest as (
    select text_id from labels where status <> 'withdrawn' order by changed_xid desc limit 1000
), given as (
    select text_id, created_at from newest join annotations using (text_id)
    where annotations.status = 'submitted' and withdrawn_at is null
), since as (
    select greatest(now() - interval '1 hour', min(at)) as at
    from (select max(created_at) as at from given group by text_id) as latest
)
select count(*), extract(epoch from now() - since.at)::float8 from given, since
where created_at >= since.at group by since.at
""")

# Gold texts that wait for their share may wait for ever, so they count for nothing.
_MISSING_ANSWERS = text("""
select coalesce(sum(coalesce(answers_wanted, 1) * (pending - gold) + open), 0)::float8 from (
    select answers_wanted,
        (select count(*) from texts where dataset = name and status = 'pending') as pending,
        (select count(*) from texts
         where dataset = name and status = 'pending' and gold_label is not null and page_position is null) as gold,
        (select coalesce(sum(greatest(coalesce(answers_wanted, 1) - coalesce(annotations, 0), 0)), 0)
         from texts left join labels on text_id = id
         where texts.dataset = name and texts.status in ('uploading', 'uploaded') and completed_at is null) as open
    from datasets
) as each_dataset
""")


@dataclass
class _Report:
    """The state of the platform at one time."""

    queue: dict[str, Any] = field(default_factory=dict)
    stats: dict[str, dict[str, Any]] = field(default_factory=dict)  # by dataset
    labels_per_hour: float | None = None
    seconds_left: float | None = None  # until all texts have all wanted answers, at the pace of the last hour
    problems: list[str] = field(default_factory=list)
    outages: dict[str, tuple[str, list[str]]] = field(default_factory=dict)  # reason and programs, by dependency

    def add_outage(self, dependency: str, reason: str, program: str) -> None:
        """Note that a program misses a dependency; one that several programs miss is one outage."""
        self.outages.setdefault(dependency, (reason, []))[1].append(program)

    def as_json(self) -> dict[str, Any]:
        """Return it for programs."""
        shown = ("by_label", "by_status", "replica_age_seconds")
        datasets = {name: {key: stats.get(key) for key in shown} for name, stats in self.stats.items()}
        labels = next(iter(datasets.values()), dict.fromkeys(shown))
        pace = {"labels_per_hour": self.labels_per_hour, "seconds_left": self.seconds_left}
        return {"queue": self.queue, "labels": labels, "datasets": datasets, **pace, "problems": self.problems}


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
    _read_stats(report)
    late = _read_database(report)
    report.problems += [f"{need}: {reason} ({', '.join(seen)})" for need, (reason, seen) in report.outages.items()]
    for alert in report.queue.pop("alerts", []):
        report.problems.append(
            f"dataset {alert['dataset']}, since {alert['since']}: {alert['reason']} ({alert['code']})"
        )
    report.problems += late
    return report


def _read_stats(report: _Report) -> None:
    url = addresses.serving_url()
    for name in _get(report, "serving API", url, "").get("datasets", {}):
        if stats := _fetch(report, f"{url}/stats?dataset={name}", is_optional=True):
            report.stats[name] = stats


def _get(report: _Report, program: str, url: str, path: str) -> dict[str, Any]:
    """Ask a program for its missing dependencies, and return its response; nothing if it fails."""
    try:
        ready = httpx.get(f"{url}/readyz", timeout=5)
    except httpx.TransportError as error:
        report.problems.append(f"{program} at {url} does not answer: {error}")
        return {}
    for dependency, reason in ready.json()["missing"].items():
        report.add_outage(dependency, reason, program)
    return _fetch(report, f"{url}/{path}")


def _fetch(report: _Report, url: str, *, is_optional: bool = False) -> dict[str, Any]:
    """Return a response; nothing if it fails, or if it is optional and the key may not see it."""
    try:
        answer = httpx.get(url, headers=addresses.headers(), timeout=10)
        if is_optional and answer.status_code == httpx.codes.FORBIDDEN:
            return {}
        answer.raise_for_status()
    except httpx.HTTPError as error:
        if not report.outages:  # otherwise the outage is the cause
            report.problems.append(f"{url}: {error}")
        return {}
    values: dict[str, Any] = answer.json()
    return values


def _read_database(report: _Report) -> list[str]:
    """Read the pace; return a line for each overdue forget request."""
    if not addresses.knows_database():
        return []
    try:
        with addresses.transaction("status") as connection:
            report.labels_per_hour = _to_rate(connection.execute(_LABELS).one())
            if answers_per_hour := _to_rate(connection.execute(_ANSWERS).first()):
                missing = connection.scalar(_MISSING_ANSWERS) or 0
                report.seconds_left = 3600 * missing / answers_per_hour
            look_if_waited_for(connection)
            return list_stuck(connection)
    except SQLAlchemyError as error:  # its message contains the statement
        report.add_outage("database", f"Postgres does not answer: {type(error).__name__}", "annotate")
        return []


def _to_rate(row: Any) -> float:
    """Return a number of events per hour, from a row with their number and the seconds that they took."""
    if row is None or not row[0]:
        return 0.0
    return float(3600 * row[0] / max(row[1], 1.0))


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
    rows: dict[str, str] = {}
    for dataset, stats in report.stats.items():
        prefix = f"{dataset}: " if len(report.stats) > 1 else ""
        for kind in ("label", "status"):
            rows |= {f"{prefix}{kind} {name}": f"{count:,}" for name, count in stats.get(f"by_{kind}", {}).items()}
    ages = [stats["replica_age_seconds"] for stats in report.stats.values() if "replica_age_seconds" in stats]
    if ages:
        rows["replica age seconds"] = f"{ages[-1]:.1f}"
    if report.labels_per_hour is not None:
        rows["labelled per hour"] = f"{report.labels_per_hour:,.0f}"
    if report.seconds_left is not None:
        rows["time left at this pace"] = _written(report.seconds_left)
    return rows


def _written(seconds: float) -> str:
    hours, minutes = divmod(round(seconds / 60), 60)
    days, hours = divmod(hours, 24)
    return f"{days} d {hours} h" if days else f"{hours} h {minutes} min"
