"""A circuit breaker for all datasets: while Argilla does not answer, calls fail without being made."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from enum import StrEnum

import structlog

from uploader import metrics
from uploader.argilla.errors import ArgillaError, Fault, Unreachable
from uploader.runner import Backoff

log = structlog.get_logger()


class CircuitState(StrEnum):
    """What becomes of a call."""

    CLOSED = "closed"  # it is made
    OPEN = "open"  # it fails immediately, until the pause is over
    HALF_OPEN = "half_open"  # one small call is made first, and decides


class Circuit:
    """Whether calls of Argilla are worth making.

    Only silence opens it: a refused connection, a gateway's 503. An error is an answer; but after a 500 or a
    time-out, which may be Argilla's fault or the call's, the next call waits for the small one.
    """

    def __init__(self, cap_seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.state = CircuitState.CLOSED
        self._backoff = Backoff(cap_seconds, clock)
        self._reason = ""
        self._probing = asyncio.Lock()

    async def enter(self, probe: Callable[[], Awaitable[object]]) -> None:
        """Let a call pass; `probe` is the small one.

        Raises:
            Unreachable: Argilla does not answer.
        """
        if self._is_closed():
            return
        # One caller probes; the others wait for its result.
        async with self._probing:
            if self._is_closed():
                return
            if self._backoff.is_on():
                raise Unreachable(f"Argilla does not answer: {self._reason}")
            self._show(CircuitState.HALF_OPEN)
            try:
                await probe()
            except (Fault, Unreachable) as error:
                self.fail(str(error))
                raise Unreachable(f"Argilla does not answer: {self._reason}") from error
            except ArgillaError:
                pass  # a response: the waiting calls will get it, too
            self._close()

    def _is_closed(self) -> bool:
        return self.state == CircuitState.CLOSED

    def doubt(self) -> None:
        """Record a 500 or a time-out."""
        if self._is_closed():
            self._show(CircuitState.HALF_OPEN)

    def fail(self, reason: str) -> None:
        """Record that Argilla did not answer; begins a pause unless one is on."""
        if self.state != CircuitState.OPEN or not self._backoff.is_on():
            pause_seconds = self._backoff.fail()
            if not self._reason:
                log.warning("circuit.opened", reason=reason, pause_seconds=round(pause_seconds, 1))
        self._reason = reason
        self._show(CircuitState.OPEN)

    def _close(self) -> None:
        if self._reason:
            log.info("circuit.closed")
        self._reason = ""
        self._backoff.succeed()
        self._show(CircuitState.CLOSED)

    def _show(self, state: CircuitState) -> None:
        self.state = state
        metrics.CIRCUIT_STATE.state(state)
