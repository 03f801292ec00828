"""`locust -f open_model.py`: requests arrive at random times with a given rate, whether or not others wait."""

import logging
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path

import gevent
from gevent.pool import Group
from locust import User, events, task
from locust.env import Environment
from locust.log import greenlet_exception_logger

# Locust puts this folder on the path, not the project's.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from load_testing.users import api_users, run_listeners  # noqa: F401 - one listens
from load_testing.users.checked_user import CheckedUser, given_to
from load_testing.users.load_run import add_open_options, journal

events.init_command_line_parser.add_listener(add_open_options)
_KINDS: tuple[type[CheckedUser], ...] = (api_users.IngestionUser, api_users.ServingUser)
_log_error = greenlet_exception_logger(logging.getLogger("load_testing"))
_CHANCE = random.Random()  # noqa: S311 - arrivals, no secret


class Arrivals(User):
    """Sends the requests of both APIs' users as a Poisson process. One instance makes all the load."""

    fixed_count = 1

    def __init__(self, environment: Environment) -> None:
        """Start without connections."""
        super().__init__(environment)
        self._options = given_to(environment)
        self._idle: dict[type[CheckedUser], list[CheckedUser]] = {kind: [] for kind in _KINDS}
        self._under_way = Group()
        self._next = time.perf_counter()

    def wait_time(self) -> float:
        """Return 0: the task waits for the next arrival."""
        return 0.0

    @task
    def arrive(self) -> None:
        """Wait for the time of the next arrival and send it; it is late if this process is too busy."""
        self._next += _CHANCE.expovariate(self._options.rate)
        gevent.sleep(max(self._next - time.perf_counter(), 0))
        journal().counts["arrivals"] += 1
        if len(self._under_way) >= self._options.in_flight:
            journal().counts["dropped"] += 1
            return
        # Locust logs an error in its own tasks and fails the run. This does the same.
        self._under_way.spawn(self._send, self._next).link_exception(_log_error)

    def on_stop(self) -> None:
        """Wait for the requests in flight: without the slowest ones the latencies would look better."""
        self._under_way.join()

    def _send(self, intended: float) -> None:
        kind = _CHANCE.choices(_KINDS, [kind.weight for kind in _KINDS])[0]
        # Take the user that was idle for the shortest time, so that unneeded connections close.
        user = self._idle[kind].pop() if self._idle[kind] else kind(self.environment)
        user.intended, user.in_flight = intended, len(self._under_way)
        tasks: list[Callable[[CheckedUser], None]] = kind.tasks  # type: ignore[assignment]  # ours are functions
        _CHANCE.choice(tasks)(user)
        self._idle[kind].append(user)
