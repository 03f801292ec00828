"""When to sweep."""

from dataclasses import dataclass

# A sweep without a reason costs Argilla at most a tenth of its time.
_REST_FACTOR = 9
_SHORTEST_REST_SECONDS = 10


@dataclass
class Rhythm:
    """The rests between the sweeps of one dataset. All times are monotonic seconds."""

    longest_rest_seconds: float
    ended_at: float | None = None
    took_seconds: float = 0

    def is_due(self, now: float, activity_moved: bool) -> bool:
        """Whether a sweep should begin.

        At once when annotators were active, with rests as long as the sweeps on a dataset where they always
        are. Besides on a timer: deleted users and records move no activity.
        """
        if self.ended_at is None:
            return True
        rested = now - self.ended_at
        if activity_moved:
            return rested >= self.took_seconds
        rest = max(_SHORTEST_REST_SECONDS, _REST_FACTOR * self.took_seconds)
        return rested >= min(rest, self.longest_rest_seconds)

    def note(self, began_at: float, ended_at: float) -> None:
        """Take note of a complete sweep."""
        self.ended_at, self.took_seconds = ended_at, ended_at - began_at
