"""The virtual environment of the Argilla server, built from a lock with hashes, and shared by all stacks."""

import fcntl
import hashlib
import shutil
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from uv import find_uv_bin

from local_stack import StackStopped
from local_stack.packages.locked_packages import environment_for_uv
from local_stack.plan import Context
from local_stack.processes.guarded import Command, run_to_end

_LOCK_FILE = Path(__file__).with_name("argilla_server.lock")
STEP_NAME = "argilla_files"


def environment_key() -> str:
    """Return a short name made of the hash of the lock and the Python version."""
    digest = hashlib.sha256(_LOCK_FILE.read_bytes()).hexdigest()[:16]
    return f"{sys.implementation.name}{sys.version_info.major}.{sys.version_info.minor}-{digest}"


def argilla_python(cache_dir: Path) -> Path:
    """Return the path of the Python that has the Argilla server."""
    return _environment(cache_dir) / "bin" / "python"


def _environment(cache_dir: Path) -> Path:
    return cache_dir / "argilla_server" / environment_key()


def is_argilla_installed(cache_dir: Path) -> bool:
    """Whether the environment exists; false also if its base Python was removed."""
    return argilla_python(cache_dir).exists()


def install_argilla(context: Context) -> None:
    """Build the environment unless it exists.

    Raises:
        StackError: the packages could not be installed.
        StackStopped: the stack was asked to stop.
    """
    cache_dir = context.settings.cache_dir
    if is_argilla_installed(cache_dir):
        return
    environment = _environment(cache_dir)
    environment.parent.mkdir(parents=True, exist_ok=True)
    with _exclusive(environment.with_name(environment.name + ".lock"), context.stop_asked):
        if is_argilla_installed(cache_dir):
            return
        # Renamed when complete, so that an incomplete one is never used.
        unfinished = environment.with_name(environment.name + ".unfinished")
        for stale in (unfinished, environment):
            shutil.rmtree(stale, ignore_errors=True)
        _build(context, unfinished)
        unfinished.rename(environment)


def _build(context: Context, environment: Path) -> None:
    context.show(STEP_NAME, "installing the Argilla server")
    uv = find_uv_bin()
    _run(context, [uv, "venv", "--python", sys.executable, environment])
    _run(
        context,
        [
            uv,
            "pip",
            "install",
            "--python",
            environment / "bin" / "python",
            "--require-hashes",
            # The lock is complete. It has newer releases than Argilla allows: argilla_server.overrides.
            "--no-deps",
            "--compile-bytecode",
            "--requirements",
            _LOCK_FILE,
        ],
    )


def _run(context: Context, argv: list[str | Path]) -> None:
    # The caller's environment has proxies, certificates and package index settings.
    environment = {name: value for name, value in environment_for_uv().items() if name != "VIRTUAL_ENV"}
    environment = {"UV_HTTP_RETRIES": "6", **environment, "UV_NO_PROGRESS": "1"}
    command = Command(argv, environment, context.settings.cache_dir)
    run_to_end(STEP_NAME, command, context.log(STEP_NAME), context.stop_asked, context.lock)


@contextmanager
def _exclusive(path: Path, stop_asked: threading.Event) -> Iterator[None]:
    with path.open("w") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as error:
                if stop_asked.wait(0.2):
                    raise StackStopped("The installation of Argilla was stopped.") from error
        yield
