"""The programs that `make bench` compares the platform with: own apps, and packages that locks pin."""

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

from uv import find_uv_bin

from local_stack.settings import StackSettings

LOCKS = Path(__file__).parent


def install(lock: Path) -> Path:
    """Return the folder with the programs that a hashed lock pins. Installs them once per machine.

    Raises:
        subprocess.CalledProcessError: the packages could not be installed; its `stderr` has the reason.
    """
    key = hashlib.sha256(lock.read_bytes() + sys.version.encode()).hexdigest()[:16]
    environment = StackSettings().cache_dir / "bench" / f"{lock.stem}-{key}"
    if not environment.exists():
        unfinished = environment.with_name(f"{environment.name}.unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        _run_uv("venv", "--python", sys.executable, "--relocatable", unfinished)
        python = unfinished / "bin" / "python"
        _run_uv("pip", "install", "--python", python, "--require-hashes", "--requirements", lock)
        unfinished.rename(environment)
    return environment / "bin"


def _run_uv(*arguments: str | Path) -> None:
    env = {name: value for name, value in os.environ.items() if name != "VIRTUAL_ENV"}
    command = [find_uv_bin(), *arguments]
    subprocess.run(command, env=env, check=True, capture_output=True, text=True)  # noqa: S603 - uv, and our lock
