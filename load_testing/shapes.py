"""How many users there are at which moment, in the closed model."""

from locust import LoadTestShape

from load_testing.options import given_to
from load_testing.shape_plans import PLANS

_SECONDS = 100
# How fast they come is the plan's affair; Locust warns of more than this.
_SPAWN_RATE = 100


class Plan(LoadTestShape):
    """Follows the option `--shape`, up to the number of users and for the run time that Locust was given."""

    use_common_options = True
    abstract = False

    def tick(self) -> tuple[int, float] | None:
        """Return how many users there are to be now, or that it is over."""
        if self.runner is None:
            return None
        options = given_to(self.runner.environment)
        seconds = options.run_time or _SECONDS
        passed = self.get_run_time() / seconds
        if passed >= 1:
            return None
        return PLANS[options.shape](passed, options.num_users or 1), _SPAWN_RATE
