"""Processes that work in the background of the one that serves."""

import os
import signal

_NICENESS = 19


def step_back() -> None:
    """Let what people wait for go first, and leave Ctrl-C to the process that serves them."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.nice(_NICENESS - os.nice(0))
