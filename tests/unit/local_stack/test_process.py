import signal
import sys
import threading
from pathlib import Path

import psutil
import pytest

from local_stack import StackError, StackStopped
from local_stack.guarded import Command, GuardedProcess, describe_exit, run_to_end
from tests.waiting import wait_for

# A parent that starts a child in a new session, writes the child's pid, and waits.
WITH_A_GRANDCHILD = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], start_new_session=True)
print(child.pid, flush=True)
time.sleep(60)
"""
WITH_A_GRANDCHILD_IN_THE_SAME_SESSION = WITH_A_GRANDCHILD.replace("start_new_session=True", "process_group=0")
STUBBORN = """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("ready", flush=True)
time.sleep(60)
"""


def command(source: str, grace_seconds: float = 5) -> Command:
    return Command([sys.executable, "-c", source], {}, Path.cwd(), grace_seconds=grace_seconds)


def wait_for_text(log: Path) -> str:
    wait_for(lambda: log.exists() and bool(log.read_text()))
    return log.read_text()


def test_exit_code_is_passed_on(tmp_path: Path) -> None:
    process = GuardedProcess("it", command("raise SystemExit(3)"), tmp_path / "log")
    assert process.wait() == 3


def test_pid_is_the_commands_own(tmp_path: Path) -> None:
    process = GuardedProcess(
        "it", command("import os, time; print(os.getpid(), flush=True); time.sleep(60)"), tmp_path / "log"
    )
    assert int(wait_for_text(tmp_path / "log")) == process.pid
    process.stop()


def test_stop_ends_grandchildren_in_sessions_of_their_own(tmp_path: Path) -> None:
    process = GuardedProcess("it", command(WITH_A_GRANDCHILD), tmp_path / "log")
    grandchild = int(wait_for_text(tmp_path / "log"))
    assert psutil.pid_exists(grandchild)
    process.stop()
    assert not psutil.pid_exists(process.pid)
    assert not psutil.pid_exists(grandchild)


def test_death_of_the_command_ends_its_children(tmp_path: Path) -> None:
    process = GuardedProcess("it", command(WITH_A_GRANDCHILD), tmp_path / "log")
    grandchild = int(wait_for_text(tmp_path / "log"))
    process.signal(signal.SIGKILL)
    assert process.wait() == 128 + signal.SIGKILL
    assert not psutil.pid_exists(grandchild)


def test_death_of_the_guard_ends_the_command_and_its_children(tmp_path: Path) -> None:
    process = GuardedProcess("it", command(WITH_A_GRANDCHILD_IN_THE_SAME_SESSION), tmp_path / "log")
    grandchild = psutil.Process(int(wait_for_text(tmp_path / "log")))
    guard = psutil.Process(process.pid).parent()
    assert guard is not None
    guard.kill()
    assert process.wait() == -signal.SIGKILL
    assert not psutil.pid_exists(process.pid)
    assert not grandchild.is_running() or grandchild.status() == psutil.STATUS_ZOMBIE


def test_command_that_ignores_the_stop_signal_is_killed(tmp_path: Path) -> None:
    process = GuardedProcess("it", command(STUBBORN, grace_seconds=0.3), tmp_path / "log")
    wait_for_text(tmp_path / "log")
    process.stop()
    assert process.wait() == 128 + signal.SIGKILL


def test_missing_program_is_named(tmp_path: Path) -> None:
    with pytest.raises(StackError, match=r"it cannot be started: .*/no/such/program"):
        GuardedProcess("it", Command(["/no/such/program"], {}, tmp_path), tmp_path / "log")


def test_missing_working_directory_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="missing"):
        GuardedProcess("it", Command([sys.executable], {}, tmp_path / "missing"), tmp_path / "log")


def test_failed_run_shows_its_last_lines(tmp_path: Path) -> None:
    failing = command("print('no room'); raise SystemExit(1)")
    with pytest.raises(StackError, match=r"it failed: exit code 1\. (.|\n)*no room"):
        run_to_end("it", failing, tmp_path / "log", threading.Event())


def test_stop_ends_a_run(tmp_path: Path) -> None:
    stop_asked = threading.Event()
    stop_asked.set()
    with pytest.raises(StackStopped):
        run_to_end("it", command("import time; time.sleep(60)"), tmp_path / "log", stop_asked)


def test_no_descriptor_is_left_open(tmp_path: Path) -> None:
    before = psutil.Process().num_fds()
    run_to_end("it", command(""), tmp_path / "log", threading.Event())
    assert psutil.Process().num_fds() == before


@pytest.mark.parametrize(
    ("code", "words"), [(137, "killed by SIGKILL"), (1, "exit code 1"), (255, "exit code 255")]
)
def test_exit_is_described(code: int, words: str) -> None:
    assert describe_exit(code) == words
