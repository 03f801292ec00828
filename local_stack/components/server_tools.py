"""The environment of a server, and whether it answers."""

import os
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import httpx

_PASSED_ON = ("PATH", "HOME", "USER", "LOGNAME", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "LD_LIBRARY_PATH")


def server_environment(temporary: Path) -> dict[str, str]:
    """Return a small environment for a server: nothing of the caller's can change how it works."""
    inherited = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    return inherited | {"TMPDIR": str(temporary)}


def without_proxy_for_loopback(environment: dict[str, str]) -> dict[str, str]:
    """Return `environment` with 127.0.0.1 taken out of any HTTP proxy."""
    hosts = [environment.get("NO_PROXY") or environment.get("no_proxy", ""), "127.0.0.1", "localhost"]
    value = ",".join(filter(None, hosts))
    return environment | {"NO_PROXY": value, "no_proxy": value}


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
