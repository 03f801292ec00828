"""Runs an application under uvicorn, in this process or in several that share a port.

`abort_connection` and `server_is_stopping` use uvicorn's internals, since ASGI has no way.
"""

import asyncio
import gc
import multiprocessing
import os
import resource
import signal
import sys
import tempfile
from collections.abc import Callable
from typing import Any

import uvicorn
from fastapi import FastAPI
from starlette.types import Receive
from uvicorn.supervisors import Multiprocess

from core.metrics import METRICS_FOLDER
from core.startup import keep_files_private
from core.web.http_protocol import http_settings

_PARENT_SECONDS = 0.5
# By name: a new process imports it only after its first heartbeat, which must come soon.
_PROTOCOL = "core.web.http_protocol:BoundedProtocol"
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
