"""Runs one command, and ends it with all its descendants when the stack is gone.

The stack holds the other end of a pipe. The pipe closes when the stack closes it or is killed. Then the guard
stops the command, waits, and kills the remaining processes. It uses only the standard library, to start fast and
to stay small: `python guard.py OPTIONS -- COMMAND`.
"""

import argparse
import ctypes
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_ON_LINUX = sys.platform == "linux"


class Child:
    """The command's process and its descendants."""

    def __init__(self, process: "subprocess.Popen[bytes]") -> None:
        self._process = process

    @property
    def exit_code(self) -> int | None:
        """Exit code as a shell gives it; None while the command runs."""
        return self._process.returncode

    def reap(self) -> None:
        """Collect all ended children. Orphans of the command are our children, too."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if pid == self._process.pid:
                code = os.waitstatus_to_exitcode(status)
                self._process.returncode = code if code >= 0 else 128 - code

    def stop(self, stop_signal: int, grace_seconds: float) -> None:
        """Ask the command to end, and kill it when it takes longer than `grace_seconds`."""
        os.kill(self._process.pid, stop_signal)
        deadline = time.monotonic() + grace_seconds
        while self.exit_code is None and time.monotonic() < deadline:
            time.sleep(0.02)
            self.reap()
        if self.exit_code is None:
            os.kill(self._process.pid, signal.SIGKILL)

    def kill_leftovers(self) -> None:
        """Kill the remaining descendants of the command; return when all are gone."""
        while leftovers := _descendants():
            for pid in leftovers:
                _kill(pid)
            time.sleep(0.01)
            self.reap()
        if not _ON_LINUX:
            _kill(-self._process.pid)


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError) as error:
        sys.stderr.write(f"guard: {pid} is gone already: {error}\n")


def _descendants() -> list[int]:
    if not _ON_LINUX:
        return []
    parents = dict(filter(None, map(_pid_and_parent, Path("/proc").glob("[0-9]*/stat"))))
    return [pid for pid in parents if pid != os.getpid() and _descends(pid, parents)]


def _pid_and_parent(stat: Path) -> tuple[int, int] | None:
    try:
        after_name = stat.read_text(errors="replace").rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return int(stat.parent.name), int(after_name[1])


def _descends(pid: int, parents: dict[int, int]) -> bool:
    while pid in parents:
        pid = parents[pid]
        if pid == os.getpid():
            return True
    return False


def _prctl(option: int, value: int) -> None:
    if _ON_LINUX:
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


def _listen_for_signals() -> int:
    read_end, write_end = os.pipe()
    os.set_blocking(write_end, False)
    signal.set_wakeup_fd(write_end, warn_on_full_buffer=False)
    for number in (signal.SIGCHLD, signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        # A handler, not SIG_IGN: that one would be inherited by the command.
        signal.signal(number, lambda *_: None)
    return read_end


def _start(options: argparse.Namespace) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(  # noqa: S603 - the stack's own commands
        options.command,
        stdin=subprocess.DEVNULL,
        process_group=0,
        user=options.uid,
        group=options.gid,
        extra_groups=None if options.uid is None else [],
        # Safe here: this process has one thread. It ends the command when the guard itself is killed.
        preexec_fn=lambda: _prctl(_PR_SET_PDEATHSIG, options.stop_signal),  # noqa: PLW1509
    )


def _run(options: argparse.Namespace) -> int:
    signals = _listen_for_signals()
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    try:
        process = _start(options)
    except (OSError, subprocess.SubprocessError) as error:
        os.write(options.report, f"error {error}".encode())
        return 127
    child = Child(process)
    os.write(options.report, f"pid {process.pid}".encode())
    os.close(options.report)
    while child.exit_code is None:
        readable, _, _ = select.select([options.lifeline, signals], [], [])
        numbers = os.read(signals, 512) if signals in readable else b""
        child.reap()
        if child.exit_code is None and (options.lifeline in readable or set(numbers) - {signal.SIGCHLD}):
            child.stop(options.stop_signal, options.grace_seconds)
            while child.exit_code is None:
                time.sleep(0.01)
                child.reap()
    child.kill_leftovers()
    return child.exit_code


def main() -> int:
    """Parse the command line and run; returns the command's exit code."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--lifeline", type=int, required=True)
    parser.add_argument("--report", type=int, required=True)
    parser.add_argument("--stop-signal", type=int, required=True)
    parser.add_argument("--grace-seconds", type=float, required=True)
    parser.add_argument("--uid", type=int)
    parser.add_argument("--gid", type=int)
    parser.add_argument("command", nargs="+")
    return _run(parser.parse_args())


if __name__ == "__main__":
    sys.exit(main())
