"""The shapes of a load: the number of users, at least one, by the share of the time that has passed."""

from collections.abc import Callable

STEPS = 10
_RAMP_SHARE = 0.5


def ramp(passed: float, users: int) -> int:
    """Grow evenly for half of the time, then stay: 50 users in 100 s are one more each second."""
    return max(1, min(users, round(users * passed / _RAMP_SHARE)))


def steps(passed: float, users: int) -> int:
    """Grow by a tenth of the users after each tenth of the time."""
    step = min(int(passed * STEPS), STEPS - 1) + 1
    return max(1, round(users * step / STEPS))


def spike(passed: float, users: int) -> int:
    """A tenth of the users; in the middle fifth of the time, all of them."""
    return users if 0.4 <= passed < 0.6 else max(1, users // 10)


def soak(passed: float, users: int) -> int:
    """All users for the whole time."""
    return users


PLANS: dict[str, Callable[[float, int], int]] = {"ramp": ramp, "steps": steps, "spike": spike, "soak": soak}
