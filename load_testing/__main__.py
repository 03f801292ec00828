"""`make loadtest`: Locust without its page, in the closed and in the open model, and a report about both."""

import argparse
import os
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from load_testing.reports.report import BUSY_SHARE, Run, read_run, write_report
from load_testing.targets import Target, find_target, labelled_texts, run_locust
from load_testing.users.shape_plans import PLANS

_HERE = Path(__file__).parent
_FILES = {"closed": _HERE / "locustfile.py", "open": _HERE / "open_model.py"}
_RATE_OF_ITS_OWN = 50.0
_console = Console()


def main() -> None:
    """Run it; the exit code is 1 if a text was lost, an objective was missed or a request failed."""
    given = _parse_arguments()
    folder = given.results / datetime.now(UTC).strftime("%Y-%m-%dT%H-%M-%SZ")
    folder.mkdir(parents=True)
    with find_target(given.texts, given.dataset) as target:
        key = os.environ.get("ANNOTATE_API_KEY")
        settings = {
            **{name: value for name, value in vars(given).items() if name not in {"results", "dataset"}},
            **target._asdict(),
            "labelled_texts": labelled_texts(target, {"Authorization": f"Bearer {key}"} if key else {}),
            "processors": os.cpu_count(),
            "load_average_before": os.getloadavg()[0],
        }
        runs = list(_run_all(given, target, folder))
    report = write_report(folder, settings, runs)
    _show(report, folder)
    if report["problems"]:
        sys.exit(1)


def _run_all(given: argparse.Namespace, target: Target, folder: Path) -> Iterator[Run]:
    """Alternate the models, so that a machine that changes its speed changes it for both."""
    for repeat in range(1, given.repeats + 1):
        rate = given.rate or _RATE_OF_ITS_OWN
        for model in given.models:
            options = _closed(given) if model == "closed" else _open(given, rate)
            _console.print(f"{model} model, {given.seconds} s, {repeat} of {given.repeats}: {' '.join(options)}")
            run = _run(model, repeat, options, given, target, folder / f"{model}-{repeat}")
            if model == "closed" and not given.rate and run.per_second:
                rate = round(run.per_second, 1)
            yield run


def _closed(given: argparse.Namespace) -> list[str]:
    think = ["--think-seconds", str(given.think_seconds)]
    return ["--users", str(given.users), "--shape", given.shape, *think]


def _open(given: argparse.Namespace, rate: float) -> list[str]:
    return ["--users", "1", "--rate", str(rate), "--in-flight", str(given.in_flight)]


def _run(
    model: str, repeat: int, options: list[str], given: argparse.Namespace, target: Target, folder: Path
) -> Run:
    seed = ["--seed", f"{given.seed}-{model}-{repeat}"] if given.seed else []
    arguments = [
        *("--run-time", f"{given.seconds}s", "--stop-timeout", "60", "--html", str(folder / "locust.html")),
        *("--dataset", target.dataset, "--keep", str(given.keep)),
        *("--objective-post-ms", str(given.objective_post_ms)),
        *("--objective-get-ms", str(given.objective_get_ms)),
        *options,
        *seed,
    ]
    urls = {"INGESTION_URL": target.ingestion_url, "SERVING_URL": target.serving_url}
    code = run_locust(_FILES[model], folder, arguments, urls)
    run = read_run(model, repeat, folder)
    if code and not run.said["problems"]:
        run.said["problems"].append(f"Locust ended with exit code {code}: see {folder / 'locust.log'}")
    return run


def _show(report: dict[str, Any], folder: Path) -> None:
    table = Table("model", "requests", "requests/s", "p50 ms", "p95 ms", "p99 ms", "min to max of p99")
    for model, names in report["spread"].items():
        for name, columns in names.items():
            medians = [f"{columns[column]['median']:,.1f}" for column in columns]
            p99 = columns["p99_ms"]
            table.add_row(model, name, *medians, f"{p99['min']:,.1f} to {p99['max']:,.1f}")
        table.add_section()
    _console.print(table)
    for run in report["runs"]:
        generator = run["generator"]
        warning = f", over {BUSY_SHARE:.0%}: its own delays are in the figures" if generator["too_busy"] else ""
        refused = f"; {run['refused']} refused" if run["refused"] else ""
        late = f"; {run['late']} late, {run['dropped']} dropped" if run["model"] == "open" else ""
        _console.print(
            f"{run['model']} {run['repeat']}: generator {generator['cpu_share']:.0%} of a core{warning}"
            f"{late}{refused}; {run['acknowledged']:,} acknowledged, {len(run['lost']):,} lost",
            soft_wrap=True,
        )
    if omission := report["coordinated_omission"]:
        p99 = omission["p99"]
        _console.print(f"p99 closed {p99['closed_ms']} ms, open {p99['open_ms']} ms: see coordinated_omission")
    for problem in report["problems"]:
        _console.print(f"[red]Failed:[/red] {problem}", soft_wrap=True)
    _console.print(f"Report, tables and pictures: {folder}", soft_wrap=True)


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m load_testing")
    add = parser.add_argument
    add("--users", type=int, default=50, help="closed model: users at most")
    add("--seconds", type=int, default=100, help="length of each run")
    add("--shape", choices=sorted(PLANS), default="ramp", help="closed model: how users come and go")
    add("--think-seconds", type=float, default=0.5, help="closed model: mean pause between requests")
    add("--rate", type=float, default=0.0, help="open model: arrivals a second; 0: as many as the closed run had")
    add("--in-flight", type=int, default=1000, help="open model: requests under way at most")
    add("--models", nargs="+", choices=list(_FILES), default=list(_FILES), help="which models to run")
    add("--repeats", type=int, default=3, help="runs of each model")
    add("--seed", default="", help="what the texts follow from; new texts in each load test without it")
    add("--objective-post-ms", type=float, default=0.0, help="p99 of POST /texts that fails a run; 0: none")
    add("--objective-get-ms", type=float, default=0.0, help="p99 of GET without exports that fails a run; 0: none")
    add("--texts", type=int, default=10_000, help="labelled texts of a stack that is started for this")
    add("--dataset", default="loadtest", help="where the texts go on a platform that INGESTION_URL names")
    add("--keep", type=int, choices=(0, 1), default=0, help="1: leave the texts in the dataset loadtest")
    add("--results", type=Path, default=_HERE / "results", help="folder for the results")
    return parser.parse_args()


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        raise SystemExit("Stopped: there is no report.") from None
