"""Installs the packages that Pipfile.lock pins, and removes the package index's address from that file.

`install` does the same as `pipenv sync --dev`, in a twentieth of its time. It runs before anything is installed,
so it needs only the standard library and the command `pipenv`.
"""

import json
import os
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

# Settings of pip, and the equivalent environment variables of uv. Both separate values by spaces.
_VARIABLES = {
    "index-url": "UV_DEFAULT_INDEX",
    "extra-index-url": "UV_INDEX",
    "find-links": "UV_FIND_LINKS",
    "trusted-host": "UV_INSECURE_HOST",
    "cert": "SSL_CERT_FILE",
    "no-index": "UV_NO_INDEX",
}


def environment_for_uv(python: str = sys.executable) -> dict[str, str]:
    """Return this process's environment with pip's settings for uv. Existing settings of uv win.

    Args:
        python: an interpreter with pip. Without pip, nothing is added.
    """
    listed = subprocess.run(  # noqa: S603 - the command is ours
        [python, "-m", "pip", "config", "list"], capture_output=True, text=True, check=False
    )
    return from_pip(listed.stdout) | os.environ


def from_pip(config_list: str) -> dict[str, str]:
    """Return uv's variables for what `pip config list` printed; environment variables, listed as `:env:`, win."""
    found: dict[str, str] = {}
    lines = [line.partition("=") for line in config_list.splitlines() if "=" in line]
    for name, _, value in sorted(lines, key=lambda line: line[0].startswith(":env:")):
        variable = _VARIABLES.get(name.rpartition(".")[2])
        if variable:
            found[variable] = " ".join(shlex.split(value))
    return found


PROJECT = Path(__file__).parents[1]


def install(environment: Path) -> None:
    """Make the virtual environment unless it is there, and install the locked packages and the project.

    Raises:
        subprocess.CalledProcessError: a step failed and has printed the reason.
    """
    python = environment / "bin" / "python"
    if not python.exists():
        _run([sys.executable, "-m", "venv", environment])
    locked = subprocess.check_output(["pipenv", "requirements", "--dev", "--hash"], cwd=PROJECT, text=True)  # noqa: S607
    packages = [line for line in locked.splitlines() if not line.startswith("-e ")]
    with tempfile.TemporaryDirectory() as folder:
        # pip installs uv itself and checks its hash.
        own = _write(Path(folder, "uv.txt"), [line for line in packages if line.startswith("uv==")])
        _run([python, "-m", "pip", "install", "--quiet", "--require-hashes", "--requirement", own])
        everything = _write(Path(folder, "packages.txt"), packages)
        # Not compiled: Python compiles each module at its first import. That is a tenth of all.
        _uv(python, ["--require-hashes", "--no-deps", "--requirement", everything])
    _uv(python, ["--no-deps", "--editable", PROJECT])


def _write(file: Path, lines: list[str]) -> Path:
    file.write_text("\n".join(lines) + "\n")
    return file


def _uv(python: Path, arguments: list[str | Path]) -> None:
    uv = python.with_name("uv")
    command = [uv, "pip", "install", "--quiet", "--python", python, *arguments]
    subprocess.run(command, env=environment_for_uv(str(python)), check=True)  # noqa: S603


def _run(command: list[str | Path]) -> None:
    subprocess.run(command, check=True)  # noqa: S603 - the commands are ours


def strip(path: Path) -> None:
    """Rewrite the lock file without sources and index names; versions and hashes stay."""
    lock = json.loads(path.read_text())
    lock["_meta"]["sources"] = []
    for section in lock.values():
        for package in section.values():
            if isinstance(package, dict):
                package.pop("index", None)
    path.write_text(json.dumps(lock, indent=4, sort_keys=True) + "\n")


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["install"]:
            try:
                install(PROJECT / ".venv")
            except subprocess.CalledProcessError as error:
                sys.exit(f"{Path(error.cmd[0]).name} failed (exit code {error.returncode}).")
        case ["strip", path]:
            strip(Path(path))
        case _:
            sys.exit("usage: locked_packages.py install | strip FILE")
