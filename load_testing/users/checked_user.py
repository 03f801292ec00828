"""The base of all users: a task is one request, and its response is checked. Also the options of a run."""

import os
import random
import re
import secrets
import time
from argparse import ArgumentTypeError, Namespace
from collections.abc import Callable
from typing import Any

import gevent
import orjson
from locust import FastHttpUser, events
from locust.argument_parser import LocustArgumentParser
from locust.env import Environment

from load_testing.users.checks import REFUSED, Answer, WrongAnswer, is_refused, refusal
from load_testing.users.run_journal import journal
from load_testing.users.shape_plans import PLANS

# The only dataset whose texts a load test deletes. Its definition says `upload = false`.
LOADTEST = "loadtest"
_SEED = re.compile(r"[A-Za-z0-9._-]{1,40}")


def _seed(value: str) -> str:
    if value and not _SEED.fullmatch(value):
        raise ArgumentTypeError("1 to 40 of the characters A-Z a-z 0-9 . _ -")
    return value


def add_closed_options(parser: LocustArgumentParser) -> None:
    """Add the options of the closed model; a listener of Locust's `init_command_line_parser`."""
    add = parser.add_argument
    add("--shape", choices=sorted(PLANS), default="ramp", help="What the shape class Plan does with the users")
    add("--think-seconds", type=float, default=0.5, help="Mean pause of a user between two requests; 0: none")


def add_open_options(parser: LocustArgumentParser) -> None:
    """Add the options of the open model; a listener of the same event."""
    add = parser.add_argument
    add("--rate", type=float, default=50.0, help="Arrivals per second")
    add("--in-flight", type=int, default=1000, help="Requests in flight at most; further arrivals are dropped")


@events.init_command_line_parser.add_listener
def _add_options(parser: LocustArgumentParser) -> None:
    add = parser.add_argument
    add("--dataset", default=LOADTEST, help="Dataset that the texts go into")
    add("--keep", type=int, choices=(0, 1), default=0, help="1: leave the texts in the dataset loadtest")
    add("--seed", type=_seed, default="", help="Seed of the texts; none: other texts in each run")
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
    # gevent's timers start at its cached time, from before the imports: `--run-time` would end too early.
    gevent.get_hub().loop.update_now()


def given_to(environment: Environment) -> Namespace:
    """Return the options of a run. Locust sets them before the run starts."""
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


# Takes the status code and the body of a 2xx.
Check = Callable[[int, bytes], None]


class CheckedUser(FastHttpUser):
    """A user with a separate connection."""

    abstract = True
    connection_timeout = 30.0
    network_timeout = 60.0
    default_headers = headers()
    # Open model: the intended time of the next request (time.perf_counter), and the requests in flight then.
    intended: float | None = None
    in_flight = 0

    def wait_time(self) -> float:
        """Return the seconds of the user's pause, exponentially distributed."""
        think: float = given_to(self.environment).think_seconds
        return random.expovariate(1 / think) if think else 0.0

    def ask(
        self,
        method: str,
        path: str,
        name: str,
        check: Check,
        body: bytes | None = None,
        content_type: str = "application/json",
        objective: str = "",
    ) -> None:
        """Send a request and check its response; its latency counts for `objective`, `post` or `get`.

        In the open model the latency begins at the intended time.
        """
        sent = time.perf_counter()
        at = sent if self.intended is None else self.intended
        late_ms = (sent - at) * 1000
        users = self.in_flight or (self.environment.runner.user_count if self.environment.runner else 0)
        context = {"at": at, "late_ms": late_ms, "users": users, "objective": objective}
        sending = {"Content-Type": content_type} if body is not None else {}
        data: Any = body  # Locust takes bytes, too
        with self.client.request(
            method, path, name=name, data=data, headers=sending, catch_response=True, context=context
        ) as response:
            response.request_meta["response_time"] += late_ms
            status, content = response.status_code, response.content
            if is_refused(status, response.headers):
                response.failure(REFUSED + refusal(status, content))
            elif failure := _judge(status, content, check):
                response.failure(failure)
            else:
                response.success()

    def get_json(self, path: str, name: str, check: Callable[[Answer], None]) -> None:
        """GET a JSON response and check it; its latency counts for the objective `get`."""
        self.ask("GET", path, name, lambda _, content: check(orjson.loads(content)), objective="get")


def note_request(
    request_type: str,
    name: str,
    response_time: float,
    context: dict[str, object],
    exception: BaseException | None,
    **_: object,
) -> None:
    """Listen to Locust's event `request`."""
    journal().note(request_type, name, response_time, context, str(exception) if exception else "")


def _judge(status: int, body: bytes | None, check: Check) -> str:
    """Return the fault of a response; empty if it is right."""
    if not 200 <= status < 300:
        return refusal(status, body)
    try:
        check(status, body or b"")
    except WrongAnswer as error:
        return str(error)
    except (KeyError, TypeError, ValueError) as error:
        return f"not as documented: {type(error).__name__} {error}"
    return ""
