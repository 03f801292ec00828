"""What a run can be told beside Locust's own options, on the command line or on its page."""

import os
import re
import secrets
from argparse import ArgumentTypeError, Namespace

import gevent
from locust import events
from locust.argument_parser import LocustArgumentParser
from locust.env import Environment

from load_testing.users.shape_plans import PLANS

# The only dataset whose texts a load test deletes. Its definition says `upload = false`.
LOADTEST = "loadtest"
_SEED = re.compile(r"[A-Za-z0-9._-]{1,40}")


def _seed(value: str) -> str:
    if value and not _SEED.fullmatch(value):
        raise ArgumentTypeError("1 to 40 of the characters A-Z a-z 0-9 . _ -")
    return value


def add_closed_options(parser: LocustArgumentParser) -> None:
    """Add the options of users who wait for their answers; listens to Locust's `init_command_line_parser`."""
    add = parser.add_argument
    add("--shape", choices=sorted(PLANS), default="ramp", help="What the shape class Plan does with the users")
    add("--think-seconds", type=float, default=0.5, help="Mean pause of a user between two requests; 0: none")


def add_open_options(parser: LocustArgumentParser) -> None:
    """Add the options of requests that do not wait for each other; listens to the same event."""
    add = parser.add_argument
    add("--rate", type=float, default=50.0, help="Arrivals per second")
    add("--in-flight", type=int, default=1000, help="Requests in flight at most; further arrivals are dropped")


@events.init_command_line_parser.add_listener
def _add_options(parser: LocustArgumentParser) -> None:
    add = parser.add_argument
    add("--dataset", default=LOADTEST, help="Dataset that the texts go into")
    add("--keep", type=int, choices=(0, 1), default=0, help="1: leave the texts in the dataset loadtest")
    add("--seed", type=_seed, default="", help="What the texts follow from; none: others in each run")
    add("--objective-post-ms", type=float, default=0.0, help="p99 of POST /texts that fails the run; 0: none")
    add("--objective-get-ms", type=float, default=0.0, help="p99 of GET without exports that fails it; 0: none")
    add(
        "--record",
        default="",
        include_in_web_ui=False,
        help="Folder for requests.csv and run.json; none: no files",
    )


@events.init.add_listener
def _set_the_clock(**_: object) -> None:
    # Timers count from the last look at the clock, before the imports: `--run-time` would end too early.
    gevent.get_hub().loop.update_now()


def given_to(environment: Environment) -> Namespace:
    """Return the options of a run; Locust fills them in before it starts one."""
    options: Namespace | None = environment.parsed_options
    if options is None:
        raise RuntimeError("This needs Locust's command line or page.")
    return options


def seed_of(options: Namespace) -> str:
    """Return the run's seed, a new one if none was given."""
    return options.seed or secrets.token_hex(4)


def headers() -> dict[str, str]:
    """Return the headers of every request: the API key, if ANNOTATE_API_KEY holds one."""
    key = os.environ.get("ANNOTATE_API_KEY")
    return {"Authorization": f"Bearer {key}"} if key else {}
