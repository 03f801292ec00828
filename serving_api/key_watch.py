"""Closes long responses (events, long polls, exports, downloads) when their key is withdrawn."""

import asyncio

import structlog
from starlette.types import ASGIApp, Receive, Scope, Send

from core.web import keys
from core.web.keys import KeyRing
from core.web.server import abort_connection

log = structlog.get_logger()


class KeyWatch:
    """ASGI middleware: checks the key again at intervals while a response is sent."""

    def __init__(self, app: ASGIApp, key_ring: KeyRing, seconds: float) -> None:
        """`seconds`: the interval."""
        self.app = app
        self._key_ring = key_ring
        self._seconds = seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let the request pass, and cut its connection when its key is no longer valid."""
        if scope["type"] != "http" or not self._key_ring.required:
            await self.app(scope, receive, send)
            return
        loop = asyncio.get_running_loop()
        timer: asyncio.TimerHandle

        def look() -> None:
            nonlocal timer
            # A request without a key was refused, or needs none.
            if "api_key" in scope and not self._key_ring.still_admits(scope, keys.Scope.READ):
                log.info("request.key_withdrawn", path=scope["path"])
                abort_connection(receive)
            else:
                timer = loop.call_later(self._seconds, look)

        timer = loop.call_later(self._seconds, look)
        try:
            await self.app(scope, receive, send)
        finally:
            timer.cancel()
