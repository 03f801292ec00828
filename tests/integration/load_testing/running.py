"""Starts load tests as separate processes: Locust patches the interpreter that imports it."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

from load_testing.reports.report import Run, read_run
from load_testing.targets import run_locust

ROOT = Path(__file__).parents[3]


class Ended(NamedTuple):
    """A load test that has ended."""

    code: int
    output: str
    folder: Path

    @property
    def report(self) -> dict[str, Any]:
        """What `report.json` holds."""
        found: dict[str, Any] = json.loads((self.folder / "report.json").read_text())
        return found


def load_test(
    folder: Path, ingestion_url: str, serving_url: str, env: dict[str, str] | None = None, **options: object
) -> Ended:
    """Run `python -m load_testing`; an option's value may be several words."""
    urls = {"INGESTION_URL": ingestion_url, "SERVING_URL": serving_url}
    result = subprocess.run(
        [sys.executable, "-m", "load_testing", "--results", str(folder), *_words(options)],
        cwd=ROOT,
        env=os.environ | urls | {"COLUMNS": "200"} | (env or {}),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    made = sorted(folder.iterdir())
    return Ended(result.returncode, result.stdout + result.stderr, made[-1] if made else folder)


class EndedRun(NamedTuple):
    """A single run of Locust that has ended, with its log."""

    code: int
    run: Run
    log: str


def run_file(
    name: str, folder: Path, ingestion_url: str, serving_url: str, env: dict[str, str], **options: object
) -> EndedRun:
    """Run Locust with a file of load_testing/ and without its page, as `python -m load_testing` does."""
    urls = {"INGESTION_URL": ingestion_url, "SERVING_URL": serving_url}
    # Without the time-out, Locust would abort requests in flight: their texts would be stored without a response.
    code = run_locust(ROOT / "load_testing" / name, folder, _words({"stop_timeout": 60} | options), urls | env)
    return EndedRun(code, read_run(name, 1, folder), (folder / "locust.log").read_text())


def _words(options: dict[str, object]) -> list[str]:
    return [w for name, value in options.items() for w in (f"--{name.replace('_', '-')}", *str(value).split())]
