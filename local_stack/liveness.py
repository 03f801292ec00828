"""Whether a process still lives."""

import time

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
