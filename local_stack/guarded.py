"""Processes that cannot outlive the stack, since each has a guard (guard.py); and their log files."""

import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from local_stack import StackError, StackStopped

MAX_LOG_BYTES = 20 * 2**20


def open_log(path: Path) -> int:
    """Open `path` for appending and return the descriptor; a log over the limit becomes `NAME.log.1` first."""
    if path.exists() and path.stat().st_size > MAX_LOG_BYTES:
        path.replace(_older(path))
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)


def bound_log(path: Path) -> None:
    """Move a log over the limit to `NAME.log.1` while a process writes to it; a few lines may be lost."""
    if path.exists() and path.stat().st_size > MAX_LOG_BYTES:
        shutil.copyfile(path, _older(path))
        # The writer appends, so it continues at the new end.
        os.truncate(path, 0)


def _older(path: Path) -> Path:
    return path.with_name(path.name + ".1")


def last_lines(path: Path, count: int = 20) -> str:
    """Return the last lines of a log, indented, for an error message."""
    if not path.exists():
        return "  (no output)"
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 16_384))
        lines = file.read().decode(errors="replace").splitlines()[-count:]
    return "\n".join(f"  {line}" for line in lines) or "  (no output)"


_GUARD = Path(__file__).with_name("guard.py")


@dataclass(frozen=True)
class Account:
    """A system user to run a command as; only root can."""

    uid: int
    gid: int


@dataclass(frozen=True)
class Command:
    """A command, and how it is stopped."""

    argv: Sequence[str | Path]
    env: Mapping[str, str]
    cwd: Path
    account: Account | None = None
    stop_signal: signal.Signals = signal.SIGTERM
    grace_seconds: float = 10


class GuardedProcess:
    """A running command. When `wait` has returned, the command and its descendants are gone."""

    def __init__(self, name: str, command: Command, log: Path, lock: int | None = None) -> None:
        """Start `command`, with its output in `log`; the guard holds the descriptor `lock` as long as it lives.

        Raises:
            StackError: the command cannot be started.
        """
        self.name = name
        self.log = log
        self._closing = threading.Lock()
        report, report_write = os.pipe()
        lifeline, self._lifeline = os.pipe()
        output = open_log(log)
        try:
            self._guard = subprocess.Popen(  # noqa: S603 - the stack's own commands
                _guard_argv(command, lifeline, report_write),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=command.cwd,
                env=dict(command.env),
                pass_fds=[lifeline, report_write, *([] if lock is None else [lock])],
                # Out of reach of a terminal's Ctrl-C and of a signal to the group of `make`.
                start_new_session=True,
                # Data and logs hold texts and secrets.
                umask=0o077,
            )
        except BaseException:
            os.close(self._lifeline)
            os.close(report)
            raise
        finally:
            for descriptor in (lifeline, report_write, output):
                os.close(descriptor)
        self.pid = self._read_pid(report)
        self._child = _process_or_none(self.pid)

    def _read_pid(self, report: int) -> int:
        with os.fdopen(report) as file:
            kind, _, detail = file.read().partition(" ")
        if kind == "pid":
            return int(detail)
        self.stop()
        raise StackError(f"{self.name} cannot be started: {detail or last_lines(self.log)}")

    def wait(self, timeout_seconds: float | None = None) -> int | None:
        """Return the exit code as a shell gives it, or None if the command still runs after `timeout_seconds`."""
        try:
            code = self._guard.wait(timeout_seconds)
        except subprocess.TimeoutExpired:
            return None
        self._close_lifeline()
        if code < 0:
            # The guard was killed, so do its last task: kill the processes of its session.
            _kill_session(self._guard.pid)
        return code

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the command itself, unless it is gone."""
        if self._child is not None and self._child.is_running():
            self._child.send_signal(number)

    def stop(self) -> None:
        """Let the guard stop the command, and wait until all processes are gone."""
        self._close_lifeline()
        self.wait()

    def _close_lifeline(self) -> None:
        with self._closing:
            if self._lifeline >= 0:
                os.close(self._lifeline)
                self._lifeline = -1


def _guard_argv(command: Command, lifeline: int, report: int) -> list[str]:
    account = command.account
    return [
        sys.executable,
        # No site packages, no environment: faster, and nothing of the command's can break it.
        "-I",
        "-S",
        str(_GUARD),
        f"--lifeline={lifeline}",
        f"--report={report}",
        f"--stop-signal={int(command.stop_signal)}",
        f"--grace-seconds={command.grace_seconds}",
        *([] if account is None else [f"--uid={account.uid}", f"--gid={account.gid}"]),
        "--",
        *map(str, command.argv),
    ]


def _kill_session(session: int) -> None:
    members = [process for process in psutil.process_iter() if _session_or_none(process.pid) == session]
    for process in members:
        if process.is_running():
            process.kill()
    psutil.wait_procs(members, timeout=10)


def _session_or_none(pid: int) -> int | None:
    try:
        return os.getsid(pid)
    except ProcessLookupError:
        return None


def _process_or_none(pid: int) -> psutil.Process | None:
    try:
        return psutil.Process(pid)
    except psutil.NoSuchProcess:
        return None


def run_to_end(
    name: str, command: Command, log: Path, stop_asked: threading.Event, lock: int | None = None
) -> None:
    """Run a command and wait for its end.

    Raises:
        StackError: it failed; the message ends with its last lines.
        StackStopped: the stack was asked to stop meanwhile; the command is gone.
    """
    process = GuardedProcess(name, command, log, lock)
    while (code := process.wait(0.1)) is None:
        if stop_asked.is_set():
            process.stop()
            raise StackStopped(f"{name} was stopped.")
    if code:
        raise StackError(f"{name} failed: {describe_exit(code)}. Its last lines ({log}):\n{last_lines(log)}")


def describe_exit(code: int) -> str:
    """Say how a process ended, from its exit code as a shell gives it."""
    if code > 128 and code - 128 in set(signal.Signals):
        return f"killed by {signal.Signals(code - 128).name}"
    return f"exit code {abs(code)}"
