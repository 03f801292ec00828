"""Runs an application under uvicorn, in this process or in several that share a port, with limits on requests.

uvicorn's parser accepts a head of any length and waits for the rest of it without a time limit. Here a head has
a maximum size and time, a body a longest pause and a lowest speed, and connections over a limit are refused when
they open.

`abort_connection`, `server_is_stopping` and `close_unless_continued` use uvicorn's internals: ASGI has no way.
"""

import asyncio
import gc
import multiprocessing
import os
import re
import resource
import secrets
import signal
import sys
import tempfile
from collections.abc import Callable, Iterable
from functools import cache
from typing import Any

import structlog
import uvicorn
from fastapi import FastAPI
from starlette.types import Message, Receive, Send
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol
from uvicorn.supervisors import Multiprocess

from core.metrics import HTTP_CONNECTIONS_REFUSED, METRICS_FOLDER
from core.settings import HttpSettings, read_settings
from core.startup import keep_files_private
from core.web.problems import (
    BodyTooSlow,
    HeadTooLarge,
    Malformed,
    Problem,
    RequestTimeout,
    Unavailable,
    problem_response,
)

log = structlog.get_logger()

# A client that is still sending would lose the response if the connection closed immediately: discard its data for
# this long.
_LINGER_SECONDS = 2.0
# A connection checks its clock this many times in the shortest time limit: one timer for each request costs more.
_LOOKS = 4
# Enough of a request line to find the fault in its address.
_LINE_BYTES = 2048
_REQUEST_ID = re.compile(rb"[\x21-\x7e]{1,128}")
_RAW_TARGET = re.compile(rb"[A-Z]+ [\x21-\x7e]*[\x80-\xff]")
_PARENT_SECONDS = 0.5
# By name: a new process imports it only after its first heartbeat, which must come soon.
_PROTOCOL = "core.web.server:BoundedProtocol"
# For databases, logs, and files of the replica.
_OTHER_FILES = 256


def run(factory: Callable[[], FastAPI], host: str, port: int, processes: int) -> None:
    """Run the application that a module's function makes, in this process or in several that share the port."""
    keep_files_private()
    app = factory()  # also if other processes serve: errors in the settings are reported once
    if processes == 1:
        serve(app, host, port)
    else:
        serve_in_processes(f"{factory.__module__}:{factory.__name__}", host, port, processes)


def serve(app: FastAPI, host: str, port: int) -> None:
    """Run `app` until SIGTERM or Ctrl-C; running requests get ten seconds to end."""
    # uvicorn raises the signal again after its shutdown: exit with 0.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit(0))
    uvicorn.Server(_config(app, host, port)).run()


def serve_in_processes(factory: str, host: str, port: int, processes: int) -> None:
    """Run the application that `factory` ("module:function") makes in several processes; dead ones are replaced.

    Each process calls `follow_parent` while it serves. Metrics are in files, so that each process can report all.
    """
    with tempfile.TemporaryDirectory(prefix="metrics-") as folder:
        os.environ[METRICS_FOLDER] = folder
        config = _config(factory, host, port, factory=True, workers=processes)
        Multiprocess(config, sockets=[config.bind_socket()]).run()


def _config(app: FastAPI | str, host: str, port: int, **more: Any) -> uvicorn.Config:
    _allow_files(http_settings().connections + _OTHER_FILES)
    return uvicorn.Config(
        app,
        host=host,
        port=port,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=10,
        timeout_keep_alive=http_settings().idle_seconds,
        http=_PROTOCOL,
        ws="none",
        **more,
    )


def _allow_files(number: int) -> None:
    """Raise the limit of open files as far as the system allows: each connection is one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = number if hard == resource.RLIM_INFINITY else min(number, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def settle(app: FastAPI) -> None:
    """Prepare what the first request would wait for, and exclude all objects so far from garbage collection.

    A full collection of a whole program stops all requests for 0.1 s.
    """
    app.openapi()
    gc.collect()
    gc.freeze()


async def follow_parent() -> None:
    """End this process when its parent is gone; return immediately without a parent."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return
    while parent.is_alive():  # noqa: ASYNC110 - there is no event to wait for
        await asyncio.sleep(_PARENT_SECONDS)
    os.kill(os.getpid(), signal.SIGTERM)


def abort_connection(receive: Receive) -> None:
    """Close a request's connection immediately, even if the client reads nothing.

    Uvicorn itself would wait until the client has read all that was sent.
    """
    transport = getattr(getattr(receive, "__self__", None), "transport", None)
    if transport is not None:
        transport.abort()


def server_is_stopping() -> bool:
    """Whether uvicorn is stopping. It informs the application only after all responses have ended.

    sse-starlette notes it when it has replaced the signal handler; else the handler is a method of the server.
    """
    from sse_starlette.sse import AppStatus  # here: importing it replaces uvicorn's signal handler

    server = getattr(signal.getsignal(signal.SIGTERM), "__self__", None)
    return AppStatus.should_exit or bool(getattr(server, "should_exit", False))


def read_request_id(headers: Iterable[tuple[bytes, bytes]]) -> str:
    """Return the request id that a client sent, or a new one if it sent none or one that is unfit for logs."""
    for name, value in headers:
        if name == b"x-request-id" and _REQUEST_ID.fullmatch(value):
            return value.decode()
    return secrets.token_hex(16)


def close_unless_continued(receive: Receive, send: Send) -> Send:
    """Wrap `send` for a client that expects `100 Continue`, which uvicorn sends when the body is first read.

    If the final answer comes first, the client may leave out the body, and the server could not distinguish the
    next request from it. So the connection is closed (RFC 9110, section 10.1.1). `receive` is unchanged:
    `core.web.server.abort_connection` finds the connection by it.
    """
    cycle = getattr(receive, "__self__", None)

    async def send_closing(message: Message) -> None:
        if message["type"] == "http.response.start" and getattr(cycle, "waiting_for_100_continue", False):
            message["headers"] = [*message["headers"], (b"connection", b"close")]
        await send(message)

    return send_closing


@cache
def http_settings() -> HttpSettings:
    """Return the limits of this program, read once."""
    return read_settings(HttpSettings)


class BoundedProtocol(HttpToolsProtocol):
    """One connection."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._bounds = http_settings()
        times = self._bounds.head_seconds, self._bounds.body_seconds, self._bounds.body_rate_seconds
        self._look_seconds = min(times) / _LOOKS
        # A little longer, so that an endpoint which applies the same limit can say what it stored.
        self._body_seconds = self._bounds.body_seconds + self._look_seconds
        self._head = b""  # the first bytes of the head that is being read
        self._unread = 0  # bytes received since the parser last returned a head or a part of a body
        self._in_body = False
        # Of the body, since its speed was last checked: bytes received, and the time we were ready to read.
        self._body_bytes = 0
        self._ready_seconds = 0.0
        self._looked_at = 0.0
        self._refused = False
        self._due: float | None = None  # deadline for the client's next data, by the loop's clock
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start to wait for a request, or refuse the connection."""
        super().connection_made(transport)
        if len(self.connections) > self._bounds.connections:
            self._refused = True
            HTTP_CONNECTIONS_REFUSED.labels("connections").inc()
            problem = Unavailable("Too many connections.", code="too_many_connections")
            transport.write(_render(problem, read_request_id([])))
            transport.close()  # without lingering: it must not take a place
            return
        self._due = self.loop.time() + self._bounds.head_seconds
        self._timer = self.loop.call_later(self._look_seconds, self._look)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the timer."""
        if self._timer is not None:
            self._timer.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Feed the parser, and limit its buffer."""
        if self._refused:
            return
        if not self._in_body and (self._unread == 0 or len(self._head) < _LINE_BYTES):
            self._head = (data if self._unread == 0 else self._head + data)[:_LINE_BYTES]
        self._unread += len(data)
        if self._due is None:  # a request on a connection that was idle
            self._due = self.loop.time() + self._bounds.head_seconds
        super().data_received(data)
        if self._unread > self._bounds.head_bytes:
            self._refuse("head_bytes", HeadTooLarge(self._bounds.head_bytes))

    def on_headers_complete(self) -> None:
        """Start the request, unless its head is over the limit."""
        if self._refused:
            return
        if self._unread > self._bounds.head_bytes and self._head_bytes() > self._bounds.head_bytes:
            self._refuse("head_bytes", HeadTooLarge(self._bounds.head_bytes))
            return
        super().on_headers_complete()
        # Ignore trailers. uvicorn would add them to the headers if they arrived in the same read.
        self.headers = []
        self._in_body, self._unread = True, 0
        self._body_bytes, self._ready_seconds = 0, 0.0
        self._looked_at = self.loop.time()
        self._due = self._looked_at + self._body_seconds

    def on_body(self, body: bytes) -> None:
        """Take a part of a body."""
        if self._refused:
            return
        super().on_body(body)
        self._unread = 0
        self._body_bytes += len(body)
        self._due = self.loop.time() + self._body_seconds

    def on_message_complete(self) -> None:
        """Switch to the time limit of idle connections."""
        if self._refused:
            return
        super().on_message_complete()
        self._in_body, self._unread, self._due = False, 0, None

    def send_400_response(self, msg: str) -> None:
        """Refuse a request that is not valid HTTP."""
        detail = "The request is not valid HTTP (RFC 9112)."
        if not self._in_body and _RAW_TARGET.match(self._head):
            detail = "The address has characters that are not ASCII. Percent-encode the address: ä is %C3%A4."
        self._refuse("malformed", Malformed(detail, code="malformed_http"))

    def _head_bytes(self) -> int:
        return len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)

    def _look(self) -> None:
        """Close the connection if the client is late, unless we have paused reading."""
        self._timer = None
        if self._refused or self.transport.is_closing():
            return
        now = self.loop.time()
        if self._due is not None and now >= self._due and not self.flow.read_paused:
            reason, seconds = "head_seconds", self._bounds.head_seconds
            if self._in_body:
                reason, seconds = "body_seconds", self._bounds.body_seconds
            self._refuse(reason, RequestTimeout(seconds))
            return
        if self._in_body and self._is_slow(now):
            bounds = self._bounds
            self._refuse("body_rate", BodyTooSlow(bounds.body_bytes_per_second, bounds.body_rate_seconds))
            return
        self._timer = self.loop.call_later(self._look_seconds, self._look)

    def _is_slow(self, now: float) -> bool:
        """Whether the body is too slow, over each full interval in which we were ready to read."""
        if not self.flow.read_paused and not self.cycle.waiting_for_100_continue:
            # A longer time means that this process was paused.
            self._ready_seconds += min(now - self._looked_at, 2 * self._look_seconds)
        self._looked_at = now
        if self._ready_seconds < self._bounds.body_rate_seconds:
            return False
        slow = self._body_bytes < self._bounds.body_bytes_per_second * self._ready_seconds
        self._body_bytes, self._ready_seconds = 0, 0.0
        return slow

    def _refuse(self, reason: str, problem: Problem) -> None:
        """Send a problem, unless another response comes first, and close the connection."""
        if self._refused or self.transport.is_closing():
            return
        self._refused = True
        self._unset_keepalive_if_required()
        HTTP_CONNECTIONS_REFUSED.labels(reason).inc()
        request_id = read_request_id(self.scope["headers"] if self.scope else [])
        client = self.client[0] if self.client else None
        log.info("connection.refused", reason=reason, client=client, request_id=request_id)
        cycle = self.cycle
        if cycle is not None and not cycle.response_complete:
            if not cycle.more_body and not self.pipeline:
                cycle.keep_alive = False  # the previous request is complete: respond to it first
                return
            if cycle.response_started or self.pipeline:
                self.transport.abort()
                return
            cycle.disconnected = True
            cycle.message_event.set()
        if not self._in_body or cycle is None or not cycle.response_complete:  # else it has its response
            self.transport.write(_render(problem, request_id))
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self._timer = self.loop.call_later(_LINGER_SECONDS, self.transport.abort)


def _render(problem: Problem, request_id: str) -> bytes:
    response = problem_response(problem)
    response.headers["X-Request-ID"] = request_id
    lines = [b"%b: %b\r\n" % header for header in response.raw_headers]
    return b"".join([STATUS_LINE[problem.status], *lines, b"connection: close\r\n\r\n", bytes(response.body)])
