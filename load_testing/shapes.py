"""How many users there are at which moment, in the closed model."""

from collections.abc import Callable

from locust import LoadTestShape

from load_testing.shape_plans import PLANS

_SECONDS = 100
# Users that are wanted are there at once; how fast they come is the plan's affair.
_SPAWN_RATE = 1000


class Plan(LoadTestShape):  # type: ignore[misc]  # locust's base is not typed
    """Follows the option `--shape`, up to the number of users and for the run time that Locust was given."""

    use_common_options = True
    abstract = False

    def tick(self) -> tuple[int, float] | None:
        """Return how many users there are to be now, or that it is over."""
        options = self.runner.environment.parsed_options
        seconds = options.run_time or _SECONDS
        if self.get_run_time() >= seconds:
            return None
        plan: Callable[[float, int], int] = PLANS[options.shape]
        return plan(self.get_run_time() / seconds, options.num_users or 1), _SPAWN_RATE
