"""What is tried beside the load: warming up, texts that are sent again, an Argilla that is down."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import httpx

from load_testing.compare.losses import Sent
from load_testing.compare.platforms import Platform
from load_testing.compare.versions import VERSIONS
from load_testing.users.comment_texts import submission

TEXTS = 20
_OUTAGE_SEED = "outage"
_TIMEOUT_SECONDS = 120
_WARM_UP_SEED = "warm-up"


class Outage(NamedTuple):
    """How many of so many requests were answered with a 2xx while Argilla was down."""

    posts: int
    posts_answered: int
    gets: int
    gets_answered: int


def warm_up(platform: Platform, version: str) -> None:
    """Send some texts and read some labels, one after the other: the first requests take longest."""
    with httpx.Client(timeout=_TIMEOUT_SECONDS) as client:
        for number in range(TEXTS):
            body = submission(_WARM_UP_SEED, number)
            client.post(f"{platform.ingestion_url}/texts", json=body).raise_for_status()
            for path in VERSIONS[version].reads.values():
                client.get(f"{platform.serving_url}{path}").raise_for_status()


def send_again(platform: Platform, runs: Sequence[Sent]) -> list[str]:
    """Send acknowledged texts once more, one after the other, as a client does that missed the answer."""
    bodies = [submission(run.seed, number) for run in runs for number in run.acknowledged][:TEXTS]
    with httpx.Client(base_url=platform.ingestion_url, timeout=_TIMEOUT_SECONDS) as client:
        for body in bodies:
            client.post("/texts", json=body).raise_for_status()
    return [body["text"] for body in bodies]


def take_argilla_away(platform: Platform, version: str) -> tuple[Outage, Sent]:
    """Stop Argilla, send new texts and read labels meanwhile, and start it again."""
    read_url = f"{platform.serving_url}{VERSIONS[version].reads['all']}"
    bodies = [submission(_OUTAGE_SEED, number) for number in range(TEXTS)]
    platform.stop_argilla()
    try:
        posts = [_is_answered("POST", f"{platform.ingestion_url}/texts", body) for body in bodies]
        gets = [_is_answered("GET", read_url) for _ in bodies]
    finally:
        platform.start_argilla()
    acknowledged = [number for number, is_answered in enumerate(posts) if is_answered]
    return Outage(len(posts), sum(posts), len(gets), sum(gets)), Sent(
        _OUTAGE_SEED, range(len(posts)), acknowledged
    )


def _is_answered(method: str, url: str, body: dict[str, Any] | None = None) -> bool:
    """Whether a request gets a 2xx. Version 1 closes the connection after a 500: so one for each request."""
    try:
        return httpx.request(method, url, json=body, timeout=_TIMEOUT_SECONDS).is_success
    except httpx.TransportError:
        return False
