"""Finds the process that runs the stack on a DATA_DIR; checks that it and its `make` are alive."""

import fcntl
import json
import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path

import psutil

from local_stack import StackError


def is_alive(process: psutil.Process) -> bool:
    """Whether the process still runs; a zombie counts as ended, and so does another process with its pid."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def wait_until_ended(process: psutil.Process, timeout_seconds: float) -> bool:
    """Wait for the end of any process, not only a child; False if it still runs after `timeout_seconds`."""
    deadline = time.monotonic() + timeout_seconds
    while is_alive(process):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


class MakeWatch:
    """Watches the processes from our parent up to the nearest `make`; none if `make` did not start us."""

    def __init__(self) -> None:
        self._chain = _up_to_make(psutil.Process().parents())
        # `make` sets this variable for its children.
        self._was_too_late = not self._chain and "MAKELEVEL" in os.environ
        self._catches_interrupt = bool(self._chain) and _catches_interrupt(self._chain[-1].pid)

    def end_reason(self) -> str | None:
        """Return what happened to them; None while they run."""
        if self._was_too_late or not all(is_alive(process) for process in self._chain):
            return "make was killed"
        if self._catches_interrupt and not _catches_interrupt(self._chain[-1].pid):
            # GNU make does not pass SIGINT on (a terminal sends it to all), but it stops catching it.
            return "make was interrupted"
        return None


def _up_to_make(parents: Sequence[psutil.Process]) -> Sequence[psutil.Process]:
    for position, process in enumerate(parents):
        if process.name() in {"make", "gmake"}:
            return parents[: position + 1]
    return []


def _catches_interrupt(pid: int) -> bool:
    """Whether a process has a handler for SIGINT; False if the system does not show it."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    caught = next((line for line in status.splitlines() if line.startswith("SigCgt:")), "SigCgt: 0")
    return bool(int(caught.split()[1], 16) & 1 << (signal.SIGINT - 1))


_LEFTOVERS_SECONDS = 60
# The start time is counted in ticks, and the boot time may be corrected. A reused pid is much younger.
_SAME_MOMENT_SECONDS = 2


class StackLock:
    """The lock of `data_dir`; the guards of a stack's processes share it, so it can outlive a killed stack."""

    def __init__(self, data_dir: Path) -> None:
        self._path = data_dir / "stack.lock"
        self.descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def acquire(self) -> None:
        """Take the lock; waits while what a killed stack left behind is still stopping.

        Raises:
            StackError: another stack runs on this data directory.
        """
        deadline = time.monotonic() + _LEFTOVERS_SECONDS
        while not self._try_lock():
            if (owner := self._running_owner()) is not None:
                raise StackError(
                    f"A stack already runs on {self._path.parent} (pid {owner.pid}). Stop it with `make down`, "
                    "or set DATA_DIR and the ports to start another one."
                )
            if time.monotonic() > deadline:
                raise StackError(
                    f"Processes of an earlier stack still hold {self._path} after {_LEFTOVERS_SECONDS} s. "
                    "Find them with `fuser` or `lsof` on that file."
                )
            time.sleep(0.1)
        self._write_owner()

    def release(self) -> None:
        """Give the lock back; processes still under guard keep it."""
        os.close(self.descriptor)

    def _try_lock(self) -> bool:
        try:
            fcntl.flock(self.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _write_owner(self) -> None:
        owner = {"pid": os.getpid(), "created": psutil.Process().create_time()}
        os.ftruncate(self.descriptor, 0)
        os.pwrite(self.descriptor, json.dumps(owner).encode(), 0)

    def _running_owner(self) -> psutil.Process | None:
        try:
            owner = json.loads(os.pread(self.descriptor, 1000, 0))
            process = psutil.Process(owner["pid"])
            same = abs(process.create_time() - owner["created"]) < _SAME_MOMENT_SECONDS
        except (ValueError, KeyError, TypeError, psutil.NoSuchProcess):
            # Empty for an instant while its owner writes it, or of a killed stack.
            return None
        return process if same and is_alive(process) else None

    def running_owner(self) -> psutil.Process | None:
        """Return the stack that holds the lock now, if one does."""
        if self._try_lock():
            fcntl.flock(self.descriptor, fcntl.LOCK_UN)
            return None
        return self._running_owner()

    def wait_until_free(self, timeout_seconds: float) -> bool:
        """Wait until no process of a stack is left; False if that took longer than `timeout_seconds`."""
        deadline = time.monotonic() + timeout_seconds
        while not self._try_lock():
            if time.monotonic() > deadline:
                return False
            time.sleep(0.05)
        fcntl.flock(self.descriptor, fcntl.LOCK_UN)
        return True
