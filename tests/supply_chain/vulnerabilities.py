"""Asks for known vulnerabilities of the locked runtime packages: `python -m tests.supply_chain.vulnerabilities`.

Exit code 0: none is known; 1: some are; 2: nobody could be asked, so nothing is known.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import httpx

from tests.supply_chain.locks import requirements_of_pipfile_lock, runtime_packages

SERVICE = "https://api.osv.dev/v1/query"
_SECONDS = 15


def why_unreachable(service: str) -> str | None:
    """Return why the service of vulnerabilities does not answer; None if it does."""
    try:
        answer = httpx.post(service, json={"package": {"name": "pip", "ecosystem": "PyPI"}}, timeout=_SECONDS)
        answer.raise_for_status()
        answer.json()
    except (httpx.HTTPError, ValueError) as error:
        return f"{type(error).__name__}: {error}"
    return None


def main() -> int:
    """Ask, and print what pip-audit says."""
    service = os.environ.get("VULNERABILITY_SERVICE", SERVICE)
    if reason := why_unreachable(service):
        print(f"NOT CHECKED: {service} does not answer ({reason}).", file=sys.stderr)  # noqa: T201
        print("Nothing is known of vulnerabilities. Run it where that address is reachable.", file=sys.stderr)  # noqa: T201
        return 2
    with tempfile.TemporaryDirectory() as folder:
        requirements = Path(folder) / "requirements.txt"
        requirements.write_text(requirements_of_pipfile_lock())
        command = [sys.executable, "-m", "pip_audit", "--requirement", str(requirements), "--require-hashes"]
        command += [
            "--no-deps",
            "--disable-pip",
            "--strict",
            "--vulnerability-service",
            "osv",
            "--osv-url",
            service,
        ]
        print(f"Asking about {len(runtime_packages())} packages", file=sys.stderr)  # noqa: T201
        return subprocess.run(command, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
