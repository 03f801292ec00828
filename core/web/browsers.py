"""Refuses requests from web pages of other sites, if no API keys are required.

A service without keys listens on this machine only, but any web page in a browser there can send requests to it.
With a host name that resolves to 127.0.0.1 (DNS rebinding) a page could also read the responses.
"""

from collections.abc import Collection
from functools import lru_cache
from urllib.parse import urlsplit

from starlette.types import ASGIApp, Receive, Scope, Send

from core.settings import is_loopback
from core.web.problems import HostNotAllowed, OriginNotAllowed, Problem, problem_response

_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
# The longest host name with a port. Longer values are not host names, and would fill the cache.
_MOST_CHARACTERS = 300


class BrowserGuard:
    """ASGI middleware: `Host` must name this machine or one of `hosts`; so must `Origin` in writing requests.

    `Origin` may also be one of `origins`.
    """

    def __init__(self, app: ASGIApp, hosts: Collection[str], origins: Collection[str] = ()) -> None:
        self.app = app
        self._origins = frozenset(origin.encode() for origin in origins)
        self._hosts = frozenset(host.lower() for host in hosts)
        self._allows_host = lru_cache(256)(lambda host: self._is_allowed(b"//" + host))
        self._allows_origin = lru_cache(256)(self._is_allowed)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        refusal = self._refusal(scope) if scope["type"] == "http" else None
        app = self.app if refusal is None else problem_response(refusal)
        await app(scope, receive, send)

    def _refusal(self, scope: Scope) -> Problem | None:
        for name, value in scope["headers"]:
            if name == b"host":
                if not self._allows_host(value[:_MOST_CHARACTERS]):
                    return HostNotAllowed()
            elif name == b"origin" and scope["method"] not in _SAFE:  # noqa: SIM102 - the same form as for Host
                if value not in self._origins and not self._allows_origin(value[:_MOST_CHARACTERS]):
                    return OriginNotAllowed()
        return None  # browsers always send Host: this is a script, or HTTP/1.0

    def _is_allowed(self, url: bytes) -> bool:
        """Whether an address, with any port, is on this machine or on one of the hosts that the settings name."""
        try:
            host = (urlsplit(url.decode("ascii")).hostname or "").removesuffix(".")
        except ValueError:
            return False
        return is_loopback(host) or host in self._hosts
