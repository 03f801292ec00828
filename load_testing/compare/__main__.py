"""`make compare`: loads version 1, then version 2, with the same users. Only one version runs at a time."""

import argparse
import json
import signal
import sys
import time
from collections.abc import Iterator
from itertools import product
from pathlib import Path

from rich.console import Console

from load_testing.compare import report
from load_testing.compare.platforms import Platform, running, send_again, take_argilla_away, warm_up
from load_testing.compare.report import LoadStep, failure_rows, fate_of, step_row
from load_testing.reports.summaries import Row, merge_repeats, write_rows
from load_testing.targets import describe_machine, make_result_folder, option_words, run_locust
from local_stack import StackError

_HERE = Path(__file__).parent
_KINDS = {"serving": "LabelReader", "ingestion": "TextSender"}
_console = Console()


def main() -> None:
    """Run the comparison; the exit code is 1 if version 2 lost or duplicated a text, or failed a request."""
    # A `kill` also ends the started programs.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("Stopped: there is no report."))
    given = _parse_arguments()
    folder = make_result_folder(given.results)
    settings = {name: value for name, value in vars(given).items() if name != "results"} | describe_machine()
    started = time.monotonic()
    steps: list[LoadStep] = []
    texts: list[Row] = []
    for version in ("1", "2"):
        _console.print(f"Version {version}: starting")
        with running(version, _console) as platform:
            done, row = _measure(platform, version, given, folder)
        steps += done
        texts.append(row)
    settings["took_seconds"] = round(time.monotonic() - started)
    rows = [step_row(step) for step in steps]
    if given.repeats > 1:
        rows = merge_repeats(rows, ["version", "kind", "users"])
    _write(folder, settings, rows, failure_rows(steps), texts)
    _console.print((folder / "compare.md").read_text(), markup=False, highlight=False, soft_wrap=True)
    _console.print(f"Tables and pictures: {folder}", soft_wrap=True)
    if problems := list(_problems(rows, texts)):
        raise SystemExit("\n".join(f"Failed: {problem}" for problem in problems))


def _measure(
    platform: Platform, version: str, given: argparse.Namespace, folder: Path
) -> tuple[list[LoadStep], Row]:
    """Load one version, and count its texts at the end."""
    platform.add_labelled()
    warm_up(platform, version)
    steps = []
    for repeat, kind, users in product(range(1, given.repeats + 1), _KINDS, given.steps):
        times = f"{given.seconds} s, {repeat} of {given.repeats}"
        _console.print(f"Version {version}, {kind}: {users} users for {times}")
        step = LoadStep(version, kind, users, folder / f"version-{version}-{kind}-{users}-{repeat}")
        _run(step, platform, given)
        steps.append(step)
    sent = [step.sent for step in steps if step.kind == "ingestion"]
    _console.print(f"Version {version}: counting its texts")
    fate = fate_of(sent, *platform.held())
    again = send_again(platform, sent)
    outage, sent_in_outage = take_argilla_away(platform, version)
    held = platform.held().argilla
    return steps, {
        "version": version,
        **fate._asdict(),
        "sent_again": len(again),
        "sent_again_doubled": sum(held.count(text) > 1 for text in again),
        **{f"outage_{name}": value for name, value in outage._asdict().items()},
        "outage_posts_stored": fate_of([sent_in_outage], held, []).stored,
    }


def _run(step: LoadStep, platform: Platform, given: argparse.Namespace) -> None:
    arguments = [
        *(_KINDS[step.kind], "--users", str(step.users), "--spawn-rate", str(step.users)),
        *("--run-time", f"{given.seconds}s", "--stop-timeout", "120"),
        *option_words(given, "think_seconds"),
    ]
    urls = {"INGESTION_URL": platform.ingestion_url, "SERVING_URL": platform.serving_url}
    run_locust(_HERE / "users.py", step.folder, arguments, urls | {"VERSION": step.version})


def _write(folder: Path, settings: Row, rows: list[Row], failures: list[Row], texts: list[Row]) -> None:
    write_rows(folder / "steps.csv", rows)
    write_rows(folder / "failures.csv", failures)
    write_rows(folder / "texts.csv", texts)
    everything = {"settings": settings, "steps": rows, "failures": failures, "texts": texts}
    (folder / "settings.json").write_text(json.dumps(settings, indent=2) + "\n")
    (folder / "compare.json").write_text(json.dumps(everything, indent=2) + "\n")
    drawn = report.pictures(rows, settings["think_seconds"])
    for name, picture in drawn.items():
        (folder / f"{name}.svg").write_text(picture)
    parts = [f"## {words}\n\n{report.steps_table(rows, kind)}" for kind, words in report.KINDS.items()]
    parts += [f"## Failures\n\n{report.failures_table(failures)}", f"## Texts\n\n{report.texts_table(texts)}"]
    (folder / "compare.md").write_text("\n".join(parts))
    (folder / "compare.html").write_text(report.html_page("\n".join(parts), drawn))


def _problems(rows: list[Row], texts: list[Row]) -> Iterator[str]:
    """Version 1 fails by design; version 2 must not."""
    [fate] = [row for row in texts if row["version"] == "2"]
    for name in ("lost", "failed", "doubled", "sent_again_doubled"):
        if fate[name]:
            yield f"version 2: {fate[name]} texts are {name}"
    if fate["in_postgres"] != fate["sent"]:
        yield f"version 2: of {fate['sent']} texts {fate['in_postgres']} are in Postgres"
    if failed := sum(row["failures"] for row in rows if row["version"] == "2"):
        yield f"version 2: {failed} requests failed"


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m load_testing.compare")
    add = parser.add_argument
    add("--steps", type=int, nargs="+", default=[1, 10, 25, 50, 100], help="numbers of users, one after the other")
    add("--seconds", type=int, default=12, help="length of each step")
    add("--repeats", type=int, default=1, help="runs of each step; tables show medians, plots also a band")
    add("--think-seconds", type=float, default=0.5, help="mean pause of a user between two requests")
    add("--results", type=Path, default=_HERE.parent / "results" / "compare", help="folder for the results")
    return parser.parse_args()


if __name__ == "__main__":
    try:
        main()
    except StackError as error:
        raise SystemExit(f"error: {error}") from None
    except KeyboardInterrupt:
        raise SystemExit("Stopped: there is no report.") from None
