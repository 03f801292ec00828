"""The base of all users: a task is one request, and its response is checked. Also the start of a run."""

import logging
import random
import secrets
import time
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gevent
import orjson
from locust import FastHttpUser, events
from locust.argument_parser import LocustArgumentParser
from locust.env import Environment
from locust.runners import DistributedRunner, Runner

from load_testing.targets import key_headers
from load_testing.users.checks import REFUSED, Answer, WrongAnswer, is_refused, refusal
from load_testing.users.load_run import add_options, begin, journal

# Takes the status code and the body of a 2xx.
Check = Callable[[int, bytes], None]


class CheckedUser(FastHttpUser):
    """A user with a separate connection."""

    abstract = True
    connection_timeout = 30.0
    network_timeout = 60.0
    default_headers = key_headers()
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


def given_to(environment: Environment) -> Namespace:
    """Return the options of a run. Locust sets them before the run starts."""
    options: Namespace | None = environment.parsed_options
    if options is None:
        raise RuntimeError("This needs Locust's command line or page.")
    return options


@events.init_command_line_parser.add_listener
def _add_options(parser: LocustArgumentParser) -> None:
    add_options(parser)
    parser.add_argument(
        "--record",
        default="",
        include_in_web_ui=False,
        help="Folder for requests.csv and run.json; none: no files",
    )


@events.init.add_listener
def _prepare(runner: Runner, **_: object) -> None:
    if isinstance(runner, DistributedRunner):
        raise SystemExit("Run it as one process: only that process knows the acknowledged texts.")
    # gevent's timers start at its cached time, from before the imports: `--run-time` would end too early.
    gevent.get_hub().loop.update_now()


@events.test_start.add_listener
def _begin(environment: Environment, **_: object) -> None:
    given = given_to(environment)
    started = begin(given.seed or secrets.token_hex(4), given.dataset)
    if given.record:
        started.record_to(Path(given.record))
    logging.getLogger("load_testing").info("Texts follow from the seed %s", started.seed)


@events.request.add_listener
def _note(
    request_type: str,
    name: str,
    response_time: float,
    context: dict[str, object],
    exception: BaseException | None,
    **_: object,
) -> None:
    journal().note(request_type, name, response_time, context, str(exception) if exception else "")
