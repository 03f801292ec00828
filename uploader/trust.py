"""Whether Argilla's events tell all that its annotators do."""

from datetime import datetime, timedelta

# An event's time is taken a moment before or after the activity's.
_SLACK = timedelta(seconds=1)

# So that a second look decides.
_SHORTEST_PATIENCE_SECONDS = 0.25


class Trust:
    """Follows the activity of one dataset, and the events that explain it. Moments are Argilla's."""

    def __init__(self, grace_seconds: float) -> None:
        self._grace_seconds = grace_seconds
        self._unexplained: datetime | None = None
        self._since = 0.0

    def see(self, activity: datetime, swept: datetime | None, applied: datetime | None, now: float) -> None:
        """Take note of the latest activity, that of the last complete sweep, and the newest applied event."""
        explained = [moment for moment in (swept, applied and applied + _SLACK) if moment]
        settled = max(explained) if explained else None
        if self._unexplained and settled and self._unexplained <= settled:
            self._unexplained = None
        if self._unexplained is None and (settled is None or activity > settled):
            self._unexplained, self._since = activity, now

    def is_late(self, now: float, sweep_seconds: float | None) -> bool:
        """Whether an event has been missing for so long that a sweep, which takes `sweep_seconds`, is worth it.

        To wait for as long as a sweep takes wastes at most half of the effort, whether the event comes or not.
        """
        patience = self._grace_seconds
        if sweep_seconds is not None:
            patience = min(patience, max(sweep_seconds, _SHORTEST_PATIENCE_SECONDS))
        return self._unexplained is not None and now - self._since > patience

    def is_settled(self) -> bool:
        """Whether all activity is explained."""
        return self._unexplained is None
