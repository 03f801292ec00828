"""Interrupts work that runs beyond its time limit, and ends the process when all threads of a kind are stuck.

DuckDB does not check for an interrupt everywhere, and a thread cannot be killed: only a new process helps. The
supervisor starts it: docker, the local stack, or the parent of several processes.
"""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import structlog

from serving_api.metrics import OVERDUE, STUCK

log = structlog.get_logger()

# How long `/readyz` reports stuck threads before the process stops, and how long the stop may take: a stuck thread
# never ends.
_NOTICE_SECONDS = 5.0
_STOP_SECONDS = 15.0
_LOOK_SECONDS = 0.5
_EXIT_CODE = 70  # EX_SOFTWARE


class Job:
    """Running work with its deadline, by the monotonic clock, and a function that interrupts it."""

    def __init__(self, until: float, interrupt: Callable[[], None] | None) -> None:
        self.until = until
        self.interrupt = interrupt
        self.is_interrupted = False


class Crew:
    """The threads that do one kind of work."""

    def __init__(self, kind: str, threads: int, stuck_seconds: float) -> None:
        """`stuck_seconds`: work is stuck when it runs this long past its deadline."""
        self.kind = kind
        self.threads = threads
        self._stuck_seconds = stuck_seconds
        self._jobs: set[Job] = set()
        self._lock = threading.Lock()

    @contextmanager
    def working(self, until: float, interrupt: Callable[[], None] | None = None) -> Iterator[Job]:
        """Count the block as running in one of the threads.

        After its deadline, the watchdog calls `interrupt` repeatedly until the block ends: between two statements
        an interrupt has no effect.
        """
        job = Job(until, interrupt)
        with self._lock:
            self._jobs.add(job)
        try:
            yield job
        finally:
            with self._lock:
                self._jobs.discard(job)

    def interrupt_overdue(self) -> None:
        """Interrupt the jobs past their deadline."""
        now = time.monotonic()
        with self._lock:  # so that no job ends meanwhile: its connection may then be closed or reused
            for job in self._jobs:
                if job.interrupt and now > job.until:
                    job.is_interrupted = True
                    job.interrupt()

    @property
    def overdue(self) -> int:
        """The number of jobs past their deadline."""
        return self._late_by(0)

    @property
    def is_stuck(self) -> bool:
        """Whether all threads are stuck."""
        return self._late_by(self._stuck_seconds) >= self.threads

    def _late_by(self, seconds: float) -> int:
        now = time.monotonic()
        with self._lock:
            return sum(now - job.until > seconds for job in self._jobs)


class Watchdog:
    """Watches all crews, in its own thread."""

    def __init__(self, stuck_seconds: float) -> None:
        self._stuck_seconds = stuck_seconds
        self._crews: list[Crew] = []
        self._stop = threading.Event()

    def crew(self, kind: str, threads: int, more_seconds: float = 0) -> Crew:
        """Return a new crew to watch. `more_seconds` is added to the usual time after which work is stuck."""
        crew = Crew(kind, threads, self._stuck_seconds + more_seconds)
        self._crews.append(crew)
        return crew

    def stuck(self) -> str | None:
        """Return a sentence about stuck work; None if there is none."""
        kinds = [crew.kind for crew in self._crews if crew.is_stuck]
        return f"{', '.join(kinds)} are stuck; this process ends soon, to be started again" if kinds else None

    def start(self) -> None:
        """Start watching."""
        # A daemon, since it must outlive the threads that it ends.
        threading.Thread(target=self._run, name="watchdog", daemon=True).start()

    def stop(self) -> None:
        """Stop watching: all work has ended."""
        self._stop.set()

    def _run(self) -> None:
        stuck_since: float | None = None
        while not self._stop.wait(_LOOK_SECONDS):
            for crew in self._crews:
                OVERDUE.labels(crew.kind).set(crew.overdue)
                crew.interrupt_overdue()
            what = self.stuck()
            if what is None:
                stuck_since = None
            elif stuck_since is None:
                stuck_since = time.monotonic()
                self._tell(what)
            elif time.monotonic() - stuck_since > _NOTICE_SECONDS:
                self._end()

    def _tell(self, what: str) -> None:
        for crew in self._crews:
            if crew.is_stuck:
                STUCK.labels(crew.kind).inc()
        log.error("queries.stuck", reason=what, ends_in_seconds=_NOTICE_SECONDS)

    def _end(self) -> None:
        """Stop as an operator would; if stuck threads prevent that, exit without waiting for them."""
        os.kill(os.getpid(), signal.SIGTERM)
        self._stop.wait(_STOP_SECONDS)
        os._exit(_EXIT_CODE)
