"""The program `annotate`: its name, its version, and the completion that it installs into a shell."""

import os
import pty
import select
import shutil
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
ANNOTATE = Path(sys.executable).with_name("annotate")
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
# Each Tab starts a Python that imports all commands.
SECONDS = 90


@pytest.mark.parametrize("command", [[ANNOTATE], [sys.executable, "-m", "cli"]])
def test_it_calls_itself_annotate(command: list[str | Path]) -> None:
    assert _run(*command, "--help").splitlines()[1].strip() == "Usage: annotate [OPTIONS] COMMAND [ARGS]..."
    assert _run(*command, "--version").strip() == f"annotate {VERSION}"


def test_pipenv_run_reaches_the_installed_program() -> None:
    assert "scripts" not in tomllib.loads((ROOT / "Pipfile").read_text())
    assert _run("pipenv", "run", "annotate", "--version").strip() == f"annotate {VERSION}"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_tab_completes_in_a_real_shell(shell: str, tmp_path: Path) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    env = {
        "HOME": str(tmp_path),
        "PATH": f"{ANNOTATE.parent}:{os.environ['PATH']}",
        "TERM": "dumb",
        "LANG": "C.UTF-8",
    }
    # Without this folder, fish completes all manual pages in the background, and that outlives the test.
    (tmp_path / ".local/share/fish/generated_completions").mkdir(parents=True)
    # Typer asks its parent process which shell this is.
    subprocess.run([shell, "-c", "annotate --install-completion; true"], env=env, check=True, timeout=SECONDS)
    assert "python" not in "".join(path.read_text() for path in tmp_path.rglob("*annotate*") if path.is_file())
    assert "-data" in _after_tab(shell, env, tmp_path)


def _after_tab(shell: str, env: dict[str, str], folder: Path) -> str:
    """Return what a terminal shows after `annotate demo` and Tab."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(folder)
        os.execvpe(shell, [shell, "-i"], env)  # noqa: S606 - a shell is what is tested
    try:
        # Until the shell answers, it does not read keys.
        os.write(terminal, b"echo re''ady\n")
        _read_until(terminal, "ready")
        os.write(terminal, b"annotate demo\t")
        if shell == "zsh":
            # Its first Tab only loads the completion.
            _read_until(terminal, "\a")
            os.write(terminal, b"\t")
        return _read_until(terminal, "-data")
    finally:
        os.kill(pid, 9)
        os.waitpid(pid, 0)
        os.close(terminal)


def _read_until(terminal: int, words: str) -> str:
    seen = ""
    end = time.monotonic() + SECONDS
    while words not in seen and time.monotonic() < end:
        if select.select([terminal], [], [], 0.5)[0]:
            seen += os.read(terminal, 4096).decode(errors="replace")
    return seen


def _run(*command: str | Path) -> str:
    env = os.environ | {"COLUMNS": "200", "TERM": "dumb"}
    return subprocess.run(
        command, cwd=ROOT, env=env, capture_output=True, text=True, check=True, timeout=SECONDS
    ).stdout
