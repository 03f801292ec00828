"""`make loadtest`: Locust without its page, in the closed and in the open model, and a report about both."""

import argparse
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from load_testing.reports.report import BUSY_SHARE, Run, core_shares, read_run, write_report
from load_testing.reports.summaries import write_rows
from load_testing.targets import (
    Target,
    describe_machine,
    find_target,
    labelled_texts,
    make_result_folder,
    option_words,
    run_locust,
    sampled_processors,
)
from load_testing.users.load_run import add_closed_options, add_open_options, add_options

_HERE = Path(__file__).parent
_FILES = {"closed": _HERE / "locustfile.py", "open": _HERE / "open_model.py"}
_RATE_OF_ITS_OWN = 50.0
_console = Console()


def main() -> None:
    """Run it; the exit code is 1 if a text was lost, an objective was missed or a request failed."""
    # A `kill` also ends the started programs.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    given = _parse_arguments()
    folder = make_result_folder(given.results)
    settings = {name: value for name, value in vars(given).items() if name not in {"results", "dataset"}}
    with find_target(given.texts, given.dataset) as target:
        settings |= {"ingestion_url": target.ingestion_url, "serving_url": target.serving_url}
        settings |= {"dataset": target.dataset, "labelled_texts": labelled_texts(target)} | describe_machine()
        with sampled_processors(target.pids) as samples:
            runs = list(_run_all(given, target, folder))
    if target.pids:
        write_rows(folder / "processors.csv", core_shares(samples, runs[0]))
    report = write_report(folder, settings, runs)
    _show(report, folder)
    if report["problems"]:
        sys.exit(1)


def _run_all(given: argparse.Namespace, target: Target, folder: Path) -> Iterator[Run]:
    """Alternate the models, so that a machine that changes its speed changes it for both."""
    for repeat in range(1, given.repeats + 1):
        rate = given.rate or _RATE_OF_ITS_OWN
        for model in given.models:
            if model == "closed":
                options = option_words(given, "users", "shape", "think_seconds")
            else:
                options = ["--users", "1", "--rate", str(rate), *option_words(given, "in_flight")]
            _console.print(f"{model} model, {given.seconds} s, {repeat} of {given.repeats}: {' '.join(options)}")
            run = _run(model, repeat, options, given, target, folder / f"{model}-{repeat}")
            if model == "closed" and not given.rate and run.per_second:
                rate = round(run.per_second, 1)
            yield run


def _run(
    model: str, repeat: int, options: list[str], given: argparse.Namespace, target: Target, folder: Path
) -> Run:
    seed = ["--seed", f"{given.seed}-{model}-{repeat}"] if given.seed else []
    arguments = [
        *("--run-time", f"{given.seconds}s", "--stop-timeout", "60", "--html", str(folder / "locust.html")),
        *("--dataset", target.dataset),
        *option_words(given, "keep", "objective_post_ms", "objective_get_ms"),
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
    add("--users", type=int, default=50, help="Closed model: users at most")
    add("--seconds", type=int, default=100, help="Length of each run")
    add("--models", nargs="+", choices=list(_FILES), default=list(_FILES), help="Which models to run")
    add("--repeats", type=int, default=3, help="Runs of each model")
    add("--texts", type=int, default=10_000, help="Labelled texts of a stack that is started for this")
    add("--results", type=Path, default=_HERE / "results", help="Folder for the results")
    for add_more in (add_closed_options, add_open_options, add_options):
        add_more(parser)
    parser.set_defaults(rate=0.0)
    return parser.parse_args()


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        raise SystemExit("Stopped: there is no report.") from None
