"""Rate limits: how many requests a key may send to one process, counted as a bucket that fills up again by time.

The header fields are those of draft-ietf-httpapi-ratelimit-headers-10.
"""

import math
import time
from dataclasses import dataclass

Headers = tuple[tuple[bytes, bytes], ...]

_POLICY = "key"  # the name of the only policy


@dataclass(frozen=True, slots=True)
class Limit:
    """So many requests a second in the long run, and so many at once."""

    requests_per_second: float
    burst: int

    @classmethod
    def of(cls, requests_per_second: float | None, burst: int | None) -> "Limit | None":
        """Make a limit of what is stored or set; no rate means no limit, no burst one second's requests."""
        if requests_per_second is None:
            return None
        return cls(requests_per_second, burst or math.ceil(requests_per_second))


class Bucket:
    """What is left of a limit. One number is kept: the moment at which the bucket will be full again."""

    __slots__ = ("_capacity_seconds", "_full_at", "_policy", "_seconds_each", "limit")

    def __init__(self, limit: Limit) -> None:
        self.limit = limit
        self._seconds_each = 1 / limit.requests_per_second
        self._capacity_seconds = limit.burst * self._seconds_each
        self._full_at = 0.0
        window = math.ceil(self._capacity_seconds)
        self._policy = b'"%b";q=%d;w=%d' % (_POLICY.encode(), limit.burst, window)

    def take(self, now: float | None = None) -> float:
        """Take one request and return 0; or return the seconds to wait for it, and take nothing.

        `now`: seconds of the monotonic clock.
        """
        now = time.monotonic() if now is None else now
        full_at = max(self._full_at, now) + self._seconds_each
        # A billionth of a second more or less is not the client's fault: floats are not exact.
        wait = full_at - now - self._capacity_seconds
        if wait > 1e-9:
            return wait
        self._full_at = full_at
        return 0.0

    def headers(self, now: float | None = None) -> Headers:
        """Return `RateLimit-Policy` and `RateLimit`: requests left, and seconds until the bucket is full."""
        now = time.monotonic() if now is None else now
        until_full = max(0.0, self._full_at - now)
        left = int((self._capacity_seconds - until_full) / self._seconds_each + 1e-6)
        state = b'"%b";r=%d;t=%d' % (_POLICY.encode(), left, math.ceil(until_full))
        return (b"ratelimit-policy", self._policy), (b"ratelimit", state)
