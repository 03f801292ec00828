"""Pauses that grow while something is away."""

import random
import time
from collections.abc import Callable


class Backoff:
    """The pause before the next attempt: twice as long after each failure, up to a cap, with jitter."""

    def __init__(self, cap_seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.failures = 0
        self._cap_seconds = cap_seconds
        self._clock = clock
        self._until = 0.0

    def fail(self) -> float:
        """Begin the next pause; return its length in seconds."""
        self.failures += 1
        longest = min(self._cap_seconds, 2.0 ** min(self.failures - 1, 30))
        seconds = longest * random.uniform(0.5, 1)  # noqa: S311 - spreads load, keeps no secret
        self._until = self._clock() + seconds
        return seconds

    def succeed(self) -> None:
        """Forget the failures."""
        self.failures = 0
        self._until = 0.0

    def is_on(self) -> bool:
        """Whether to wait still."""
        return self._clock() < self._until
