"""Mutation testing of one module: `make mutants MODULE=core/web/rate_limits.py`.

Plants small faults into a copy of the project, one at a time, and runs the module's tests there (modules.toml). A
fault that no test notices is printed as a diff: write a test, or list it in equivalent.toml with the reason why no
test could notice it. Each run of the tests is a fork of this process, which has loaded the libraries already, and
uses one Postgres that runs all the time.
"""

import argparse
import difflib
import math
import multiprocessing
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path

import psutil
import pytest

from tests.mutants.operators import mutants

_HERE = Path(__file__).parent
_ROOT = _HERE.parents[1]
_OURS = ("core", "ingestion_api", "uploader", "serving_api", "cli", "local_stack", "load_testing", "tests")
_FORK = multiprocessing.get_context("fork")
_LIBRARIES, _OUTPUT = "libraries.txt", "output.txt"
_POSTGRES = """
import sys
from local_stack.testing import running_stack
with running_stack({"postgres"}) as stack:
    print(stack.admin_database_url, flush=True)
    sys.stdin.read()
"""


def main() -> int:
    """Plant faults into one module, and report. Returns 1 when the tests fail without a fault."""
    options = _parse()
    path = _find(options.module)
    tests = tomllib.loads((_HERE / "modules.toml").read_text())[path]
    listed = tomllib.loads((_HERE / "equivalent.toml").read_text()).get(path, [])
    code = (_ROOT / path).read_text()
    all_ = list(mutants(code))
    unlike = [one for one in all_ if _change(code, one) not in {(e["was"], e["now"]) for e in listed}]
    chosen = [one for one in unlike if re.search(options.match, "\n".join(_change(code, one)))]
    # In random order, so that a part of them is a sample.
    random.Random(options.seed).shuffle(chosen)  # noqa: S311 - not a secret
    chosen = chosen[: options.sample]
    has_servers = any("integration" in test for test in tests)
    with _copy() as copy, _postgres(has_servers), _forking(has_servers):
        noticed = _try(code, chosen, copy / path, tests, options.minutes)
    if noticed is None:
        return 1
    share = sum(noticed) / max(1, len(noticed))
    _say("| module | mutants | equivalent | tried | killed |")
    _say(f"| `{path}` | {len(all_)} | {len(all_) - len(unlike)} | {len(noticed)} | {sum(noticed)} ({share:.0%}) |")
    return 0


def _try(code: str, chosen: list[str], module: Path, tests: list[str], minutes: float) -> list[bool] | None:
    """Return of each mutant whether the tests notice it; None when they fail without a fault."""
    _run_tests(["--collect-only", *tests], 600)
    _load_libraries()
    started = time.monotonic()
    if _run_tests(tests, 1800) != 0:
        _say(Path(_OUTPUT).read_text())
        return None
    seconds = time.monotonic() - started
    os.environ["TEST_WAIT_SECONDS"] = str(5 + seconds / 2)
    noticed: list[bool] = []
    ends_at = time.monotonic() + 60 * minutes
    for mutant in chosen:
        if time.monotonic() > ends_at:
            break
        module.write_text(mutant)
        noticed.append(_run_tests(tests, 30 + 3 * seconds) != 0)
        if not noticed[-1]:
            _say("".join(_diff(code, mutant)))
        sys.stderr.write(f"{len(noticed)} of {len(chosen)}, {noticed.count(False)} survive\n")
    return noticed


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make mutants", description=__doc__)
    parser.add_argument("--module", required=True, help="a path in modules.toml, or its end, as rate_limits")
    parser.add_argument("--sample", type=int, help="try so many of the mutants, chosen by chance")
    parser.add_argument("--minutes", type=float, default=math.inf, help="try no more of them after so long")
    parser.add_argument("--seed", type=int, default=1, help="what the choice depends on")
    parser.add_argument("--match", default="", help="try only those whose changed lines contain this pattern")
    return parser.parse_args()


def _find(name: str) -> str:
    known = tomllib.loads((_HERE / "modules.toml").read_text())
    found = [path for path in known if f"/{path}".endswith(f"/{name.removesuffix('.py')}.py")]
    if len(found) != 1:
        raise SystemExit(f"{name}: {len(found)} modules of that name in tests/mutants/modules.toml")
    return found[0]


def _diff(code: str, mutant: str) -> list[str]:
    return list(difflib.unified_diff(code.splitlines(True), mutant.splitlines(True), n=2))[2:]


def _change(code: str, mutant: str) -> tuple[str, str]:
    """Return the lines that were changed, and what they became: what equivalent.toml lists."""
    lines = [line for line in difflib.ndiff(code.splitlines(), mutant.splitlines()) if line[0] in "+-"]
    was, now = ("\n".join(line[2:].strip() for line in lines if line[0] == sign) for sign in "-+")
    return was, now


@contextmanager
def _copy() -> Iterator[Path]:
    """Copy what git would commit, and let all imports come from there: the work tree is never changed."""
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listed, cwd=_ROOT, check=True, capture_output=True, text=True).stdout.splitlines()
    with tempfile.TemporaryDirectory(prefix="mutants-") as directory:
        for name in names:
            target = Path(directory) / name
            if (_ROOT / name).exists():
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(_ROOT / name, target)
        os.chdir(directory)
        sys.path[0] = os.environ["PYTHONPATH"] = directory
        for name in [name for name in sys.modules if name.split(".")[0] in _OURS]:
            del sys.modules[name]
        yield Path(directory)
        os.chdir(_ROOT)


@contextmanager
def _postgres(needed: bool) -> Iterator[None]:
    if not needed:
        yield
        return
    command = [sys.executable, "-c", _POSTGRES]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdin
        assert server.stdout
        os.environ["TEST_POSTGRES_URL"] = server.stdout.readline().strip()
        yield
        server.stdin.close()


@contextmanager
def _forking(needed: bool) -> Iterator[None]:
    """Let all runs share the process that becomes the programs: it has loaded the libraries."""
    if not needed:
        yield
        return
    ours, theirs = socket.socketpair()
    command = [sys.executable, "-m", "tests.forking", str(theirs.fileno())]
    with ours, subprocess.Popen(command, stdin=subprocess.DEVNULL, pass_fds=[theirs.fileno()]) as process:
        theirs.close()
        os.environ["TEST_FORKING_FD"] = str(ours.fileno())
        os.environ["TEST_FORKING_PID"] = str(process.pid)
        yield
        ours.close()


def _end_programs() -> None:
    """End the programs that a run has left because it was ended itself."""
    with suppress(KeyError, psutil.NoSuchProcess):
        for program in psutil.Process(int(os.environ["TEST_FORKING_PID"])).children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                program.kill()


def _run_tests(tests: list[str], seconds: float) -> int | None:
    """Return the exit code of pytest; None when it took too long."""
    process = _FORK.Process(target=_test, args=(tests,))
    process.start()
    process.join(seconds)
    with suppress(ProcessLookupError):
        os.killpg(process.pid or 0, signal.SIGKILL)
    process.join()
    _end_programs()
    return process.exitcode if process.exitcode is None or process.exitcode >= 0 else None


def _test(tests: list[str]) -> None:
    os.setsid()
    os.nice(max(0, 5 - os.nice(0)))
    sys.dont_write_bytecode = True
    output = os.open(_OUTPUT, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(output, 1)
    os.dup2(output, 2)
    # What noticed the mutants before goes first.
    options = ["-x", "-q", "--ff", "--hypothesis-seed=0", "-W", "ignore::pytest.PytestAssertRewriteWarning"]
    code = pytest.main([*options, *tests])
    libraries = [
        name for name in sys.modules if name.split(".")[0] not in (*_OURS, "gevent", "locust", "__main__")
    ]
    Path(_LIBRARIES).write_text("\n".join(libraries))
    sys.exit(code)


def _load_libraries() -> None:
    for name in Path(_LIBRARIES).read_text().splitlines():
        with suppress(Exception):
            import_module(name)


if __name__ == "__main__":
    sys.exit(main())
