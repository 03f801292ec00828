"""Runs Schemathesis over a service's own OpenAPI document, as `schemathesis run` does for anybody."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def run_schemathesis(url: str, key: str | None = None, paths: str | None = None) -> None:
    """Check all that the document at `url` says, with every check and phase; the same cases in each run.

    `paths`: a regular expression for those to keep to.

    Settings, with the reasons for them, are in schemathesis.toml.
    """
    command = [sys.executable, "-m", "schemathesis.cli", "run", f"{url}/openapi.json", "--no-color"]
    command += ["--generation-deterministic", "--max-examples", "2"]
    command += ["--include-path-regex", paths] if paths else []
    command += ["--header", f"Authorization: Bearer {key}"] if key else []
    # Its own warnings are not errors of ours.
    done = subprocess.run(
        command, cwd=ROOT, env=os.environ | {"PYTHONWARNINGS": ""}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
