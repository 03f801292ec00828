"""Whether a process still lives, and whether the `make` that started this one was killed or interrupted."""

import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path

import psutil


def is_alive(process: psutil.Process) -> bool:
    """Whether it is still this very process and has not ended; dead but not yet collected counts as ended."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def wait_until_ended(process: psutil.Process, timeout_seconds: float) -> bool:
    """Wait for any process, not only a child; False if it still lives after `timeout_seconds`."""
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
        # `make` leaves this in the environment of what it starts.
        self._was_too_late = not self._chain and "MAKELEVEL" in os.environ
        self._catches_interrupt = bool(self._chain) and _catches_interrupt(self._chain[-1].pid)

    def end_reason(self) -> str | None:
        """Say what happened to them; None while all is well."""
        if self._was_too_late or not all(is_alive(process) for process in self._chain):
            return "make was killed"
        if self._catches_interrupt and not _catches_interrupt(self._chain[-1].pid):
            # GNU make passes SIGINT on to nobody (a terminal sends it to all), but stops catching it.
            return "make was interrupted"
        return None


def _up_to_make(parents: Sequence[psutil.Process]) -> Sequence[psutil.Process]:
    for position, process in enumerate(parents):
        if process.name() in {"make", "gmake"}:
            return parents[: position + 1]
    return []


def _catches_interrupt(pid: int) -> bool:
    """Whether a process has a handler for SIGINT; False where the system does not tell."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    caught = next((line for line in status.splitlines() if line.startswith("SigCgt:")), "SigCgt: 0")
    return bool(int(caught.split()[1], 16) & 1 << (signal.SIGINT - 1))
