"""`locust` in this folder: opens the page on http://localhost:8089, with the users of both APIs."""

import sys
from pathlib import Path

from locust import LoadTestShape, events

# Locust puts this folder on the path, not the project's.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from load_testing.users import run_listeners  # noqa: F401 - listens
from load_testing.users.api_users import IngestionUser, ServingUser
from load_testing.users.checked_user import given_to
from load_testing.users.load_run import PLANS, add_closed_options

__all__ = ["IngestionUser", "Plan", "ServingUser"]

events.init_command_line_parser.add_listener(add_closed_options)
_SECONDS = 100
# The plan decides the spawn rate; Locust warns of a higher rate than this.
_SPAWN_RATE = 100


class Plan(LoadTestShape):
    """Follows the option `--shape`, up to Locust's number of users and for its run time."""

    use_common_options = True
    abstract = False

    def tick(self) -> tuple[int, float] | None:
        """Return the current number of users and the spawn rate; None when the run is over."""
        if self.runner is None:
            return None
        options = given_to(self.runner.environment)
        seconds = options.run_time or _SECONDS
        passed = self.get_run_time() / seconds
        if passed >= 1:
            return None
        return PLANS[options.shape](passed, options.num_users or 1), _SPAWN_RATE
