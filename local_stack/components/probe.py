"""Asks a server whether it is ready."""

from collections.abc import Mapping
from functools import cache

import httpx


@cache
def _client() -> httpx.Client:
    # Made once: a client takes long to make. No proxy, and no connection kept, since servers come and go.
    return httpx.Client(timeout=5, trust_env=False, limits=httpx.Limits(max_keepalive_connections=0))


def answers_ok(url: str, headers: Mapping[str, str] | None = None) -> bool:
    """Whether a GET is answered with 200; false too while nobody listens."""
    try:
        return _client().get(url, headers=headers).status_code == httpx.codes.OK
    except httpx.TransportError:
        return False
