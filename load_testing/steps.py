"""`python -m load_testing.steps`: a growing number of users without pauses, and the processor time of each part.

Runs `python -m load_testing` against a new stack with labelled texts.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import psutil

from core.datasets import DEFAULT_DATASET
from load_testing.bench.harness import sum_over_family
from load_testing.reports.summaries import Row, write_rows
from load_testing.targets import add_demo_texts, option_words, wait_until_served
from local_stack.testing import RunningStack, running_stack

_INTERVAL_SECONDS = 0.5
_TEXTS = 10_000
_RESULTS = Path(__file__).with_name("results") / "steps"


class CoreSample(NamedTuple):
    """The processor seconds of each part since its start, at a time."""

    at: float
    seconds: dict[str, float]


def main() -> None:
    """Run it; adds `processors.csv` to the report."""
    # A `kill` also ends the started programs.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    given = _parse_arguments()
    with running_stack() as stack:
        add_demo_texts(stack.database_url, _TEXTS)
        wait_until_served(stack.serving_url, _TEXTS)
        with _sampling(stack.pids) as samples:
            folder = _load(stack, given)
    write_rows(folder / "processors.csv", shares(samples, folder))


def _load(stack: RunningStack, given: argparse.Namespace) -> Path:
    """Run the load test and return its folder. The report contains the problems, if there are any."""
    command = [
        *(sys.executable, "-m", "load_testing", "--models", "closed", "--shape", "steps"),
        *("--think-seconds", "0.001"),
        # The stack is temporary, so the texts may reach Argilla.
        *("--dataset", DEFAULT_DATASET),
        *option_words(given, "users", "seconds", "repeats", "results"),
    ]
    urls = {"INGESTION_URL": stack.ingestion_url, "SERVING_URL": stack.serving_url}
    subprocess.run(command, env=os.environ | urls, check=False)  # noqa: S603 - ourselves
    results: Path = given.results
    return max(results.iterdir())


@contextmanager
def _sampling(pids: Mapping[str, int]) -> Iterator[list[CoreSample]]:
    samples: list[CoreSample] = []
    done = threading.Event()

    def sample() -> None:
        while not done.wait(_INTERVAL_SECONDS):
            seconds = {name: sum_over_family(pid, _processor_seconds) for name, pid in pids.items()}
            samples.append(CoreSample(time.time(), seconds))

    thread = threading.Thread(target=sample)
    thread.start()
    try:
        yield samples
    finally:
        done.set()
        thread.join()


def _processor_seconds(process: psutil.Process) -> float:
    # With the times of children that have ended.
    return sum(process.cpu_times()[:4])


def shares(samples: list[CoreSample], folder: Path) -> list[Row]:
    """Return the cores of each part while requests were sent, without the look-up after them."""
    run = json.loads((folder / "closed-1" / "run.json").read_text())["generator"]
    end = (folder / "closed-1" / "requests.csv").stat().st_mtime
    start = end - run["wall_seconds"]
    inside = [sample for sample in samples if start <= sample.at <= end]
    first, last = inside[0], inside[-1]
    passed = last.at - first.at
    parts = {name: (last.seconds[name] - first.seconds[name]) / passed for name in first.seconds}
    parts["load generator"] = run["cpu_share"]
    rows = [{"part": name, "cores": round(cores, 2)} for name, cores in parts.items()]
    return sorted(rows, key=lambda row: -row["cores"])


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m load_testing.steps")
    parser.add_argument("--users", type=int, default=40, help="users at most, half of them of each API")
    parser.add_argument("--seconds", type=int, default=50, help="length of the run; a tenth of it for each step")
    parser.add_argument("--repeats", type=int, default=3, help="runs, of which the medians count")
    parser.add_argument("--results", type=Path, default=_RESULTS, help="folder for the results")
    return parser.parse_args()


if __name__ == "__main__":
    main()
