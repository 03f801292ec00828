"""What ASGI offers no way to do, by uvicorn's and sse-starlette's internals. Nothing else touches them."""

import signal

from sse_starlette.sse import AppStatus
from starlette.types import Receive


def abort_connection(receive: Receive) -> None:
    """Close a request's connection at once, also while the client reads nothing.

    Uvicorn itself would wait until the client has read all that was sent.
    """
    transport = getattr(getattr(receive, "__self__", None), "transport", None)
    if transport is not None:
        transport.abort()


def server_is_stopping() -> bool:
    """Whether uvicorn was told to stop, which it tells the application only after all responses have ended.

    sse-starlette notes it when it has replaced the signal handler; else the handler is a method of the server.
    """
    server = getattr(signal.getsignal(signal.SIGTERM), "__self__", None)
    return AppStatus.should_exit or bool(getattr(server, "should_exit", False))
