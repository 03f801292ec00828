"""Runs Schemathesis over a service's own OpenAPI document, as `schemathesis run` does for anybody."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


# Every value that the document allows at a limit, one by one, takes minutes: a matter for `make soak`.
SHORT = "examples,fuzzing,stateful"
WHOLE = "examples,coverage,fuzzing,stateful"
PHASES = [pytest.param(SHORT, id="short"), pytest.param(WHOLE, id="whole", marks=pytest.mark.soak)]


def run_schemathesis(url: str, phases: str, key: str | None = None, paths: str | None = None) -> None:
    """Check all that the document at `url` says, with every check; the same cases in each run.

    `paths`: a regular expression for those to keep to.

    Settings, with the reasons for them, are in schemathesis.toml.
    """
    command = [sys.executable, "-m", "schemathesis.cli", "run", f"{url}/openapi.json", "--no-color"]
    command += ["--generation-deterministic", "--max-examples", "2", "--phases", phases]
    command += ["--include-path-regex", paths] if paths else []
    command += ["--header", f"Authorization: Bearer {key}"] if key else []
    # Its own warnings are not errors of ours.
    done = subprocess.run(
        command, cwd=ROOT, env=os.environ | {"PYTHONWARNINGS": ""}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
