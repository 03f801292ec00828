"""Peers from PyPI, each in an environment of its own: built once a machine from a hashed lock."""

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

from uv import find_uv_bin

from local_stack.settings import StackSettings

_LOCKS = Path(__file__).parent


def install_peer(name: str) -> Path:
    """Return the directory of the programs of a peer, by its lock `name.lock` beside this file."""
    return install(_LOCKS / f"{name}.lock")


def install(lock: Path) -> Path:
    """Return the directory of the programs that a lock pins; the first time they are installed.

    Raises:
        subprocess.CalledProcessError: the packages could not be installed; its `stderr` says why.
    """
    key = hashlib.sha256(lock.read_bytes() + sys.version.encode()).hexdigest()[:16]
    environment = StackSettings().cache_dir / "bench" / f"{lock.stem}-{key}"
    if not environment.exists():
        unfinished = environment.with_name(f"{environment.name}.unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        _run("venv", "--python", sys.executable, "--relocatable", unfinished)
        python = unfinished / "bin" / "python"
        _run("pip", "install", "--python", python, "--require-hashes", "--requirements", lock)
        unfinished.rename(environment)
    return environment / "bin"


def _run(*arguments: str | Path) -> None:
    env = {name: value for name, value in os.environ.items() if name != "VIRTUAL_ENV"}
    command = [find_uv_bin(), *arguments]
    subprocess.run(command, env=env, check=True, capture_output=True, text=True)  # noqa: S603 - uv, and our lock
