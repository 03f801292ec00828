"""Serves an application of this process over real connections."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import uvicorn

from tests.integration.serving_api.labelling import wait_until


@contextmanager
def served(app: Any, lifespan: Literal["auto", "off"] = "auto") -> Iterator[str]:
    """Serve an ASGI application in a thread until the block ends; `off`: its lifespan runs elsewhere."""
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, lifespan=lifespan))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        try:
            wait_until(lambda: server.started)
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()
