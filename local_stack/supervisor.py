"""Keeps one service running: starts it, waits until it is ready, and starts it again when it dies."""

import signal
import threading
import time
from collections.abc import Callable

from local_stack import StackError, StackStopped
from local_stack.guarded import GuardedProcess, describe_exit, last_lines
from local_stack.plan import Context, Service

_FIRST_PAUSE_SECONDS = 0.5
_LONGEST_PAUSE_SECONDS = 30
# A service that ran this long before it died counts as healthy: its next pause is the first one again.
_HEALTHY_SECONDS = 60
_POLL_SECONDS = 0.1


class ServiceRunner:
    """Runs one service of a stack; the callback `tell` gets a line for each restart or failure."""

    def __init__(
        self, service: Service, context: Context, tell: Callable[[str], None], pid_changed: Callable[[], None]
    ) -> None:
        self._service = service
        self._context = context
        self._tell = tell
        self._pid_changed = pid_changed
        self._process: GuardedProcess | None = None
        self._watcher: threading.Thread | None = None
        self._stopping = threading.Event()
        self._changing = threading.Lock()

    @property
    def pid(self) -> int | None:
        """Process id of the service itself; None while there is none."""
        process = self._process
        return None if process is None else process.pid

    def start(self) -> None:
        """Start the service, wait until it is ready, and watch it from then on.

        Raises:
            StackError: it ended, or was not ready in time; the message ends with its last lines.
            StackStopped: the stack was asked to stop meanwhile.
        """
        self._stopping.clear()
        process = self._spawn()
        self._wait_until_ready(process)
        self._watcher = threading.Thread(
            target=self._watch, args=(process,), name=f"watch-{self._service.name}", daemon=True
        )
        self._watcher.start()

    def stop(self) -> None:
        """End the service and all it started; returns when they are gone."""
        self._stopping.set()
        with self._changing:
            process = self._process
        if process is not None:
            process.stop()
        if self._watcher is not None:
            self._watcher.join()
            self._watcher = None
        self._set_process(None)

    def kill(self, number: signal.Signals) -> None:
        """Send a signal to the service itself, if it runs."""
        process = self._process
        if process is not None:
            process.signal(number)

    def _spawn(self) -> GuardedProcess:
        with self._changing:
            if self._stopping.is_set():
                raise StackStopped(f"{self._service.name} was stopped.")
            command = self._service.command(self._context)
            log = self._context.log(self._service.name)
            process = GuardedProcess(self._service.name, command, log, self._context.lock)
            self._process = process
        self._pid_changed()
        return process

    def _set_process(self, process: GuardedProcess | None) -> None:
        self._process = process
        self._pid_changed()

    def _wait_until_ready(self, process: GuardedProcess) -> None:
        deadline = time.monotonic() + self._service.start_seconds
        name = self._service.name
        while not self._service.is_ready(self._context, process.pid):
            if (code := process.wait(_POLL_SECONDS)) is not None:
                raise self._failure(f"{name} ended while starting: {describe_exit(code)}.", process)
            if self._context.stop_asked.is_set() or self._stopping.is_set():
                raise StackStopped(f"{name} was stopped.")
            if time.monotonic() > deadline:
                raise self._failure(f"{name} was not ready after {self._service.start_seconds:.0f} s.", process)

    def _failure(self, what: str, process: GuardedProcess) -> StackError:
        return StackError(f"{what} Its last lines ({process.log}):\n{last_lines(process.log)}")

    def _watch(self, process: GuardedProcess) -> None:
        deaths = 0
        started = time.monotonic()
        while True:
            code = process.wait()
            if self._stopping.is_set() or code is None:
                return
            self._set_process(None)
            deaths = 1 if time.monotonic() - started > _HEALTHY_SECONDS else deaths + 1
            pause = restart_pause_seconds(deaths)
            self._tell(f"died ({describe_exit(code)}), starting it again in {pause:g} s")
            if self._stopping.wait(pause):
                return
            started = time.monotonic()
            restarted = self._restart()
            if restarted is None:
                return
            process = restarted

    def _restart(self) -> GuardedProcess | None:
        """Start again; None once the service is to stop. One that does not get ready is ended."""
        try:
            process = self._spawn()
        except StackStopped:
            return None
        try:
            self._wait_until_ready(process)
        except StackStopped:
            return None
        except StackError as error:
            self._tell(str(error))
            process.stop()
        else:
            self._tell(f"ready again (pid {process.pid})")
        return process


def restart_pause_seconds(deaths: int) -> float:
    """Return the pause before the next start after a number of consecutive deaths."""
    return min(_FIRST_PAUSE_SECONDS * 2.0 ** min(deaths - 1, 10), _LONGEST_PAUSE_SECONDS)
