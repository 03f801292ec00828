"""What users of both APIs are: each task is one request, whose answer is checked for its content."""

import random
import time
from collections.abc import Callable
from typing import Any

from locust import FastHttpUser

from load_testing.users.answers import REFUSED, WrongAnswer, is_refused, refusal
from load_testing.users.options import given_to, headers
from load_testing.users.run_journal import journal

# Gets the status code and the body of a 2xx.
Check = Callable[[int, bytes], None]


class CheckedUser(FastHttpUser):
    """A user with a connection of their own."""

    abstract = True
    connection_timeout = 30.0
    network_timeout = 60.0
    default_headers = headers()
    # Open model: when the next request was to be sent, by time.perf_counter, and how many were then under way.
    intended: float | None = None
    in_flight = 0

    def wait_time(self) -> float:
        """Return how long the user thinks: as long as it takes some, mostly shorter."""
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
        """Send a request and check its answer; `objective`, `post` or `get`, is what its latency counts for.

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
    """Return what is wrong with an answer, or nothing."""
    if not 200 <= status < 300:
        return refusal(status, body)
    try:
        check(status, body or b"")
    except WrongAnswer as error:
        return str(error)
    except (KeyError, TypeError, ValueError) as error:
        return f"not as documented: {type(error).__name__} {error}"
    return ""
