"""Where more users stop being more work done."""

from collections.abc import Sequence
from itertools import pairwise

_LEAST_GAIN = 0.5


def find_knee(levels: Sequence[tuple[int, float]]) -> int | None:
    """Return the number of users beyond which one more brings less than half of what the first ones brought each.

    `levels` are (users, requests a second), sorted by users. None: that was not reached.
    """
    if not levels:
        return None
    gain_of_first = levels[0][1] / levels[0][0]
    for (users, rate), (more_users, more_rate) in pairwise(levels):
        if (more_rate - rate) / (more_users - users) < _LEAST_GAIN * gain_of_first:
            return users
    return None
