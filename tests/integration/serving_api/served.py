"""Serves an application of this process over real connections."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import uvicorn

from tests.integration.serving_api.labelling import wait_until
from tests.programs import free_port


@contextmanager
def served(app: Any, lifespan: Literal["auto", "off"] = "auto") -> Iterator[str]:
    """Serve an ASGI application, in a thread, until the block ends; `off`: somebody else has started it."""
    port = free_port()
    server = uvicorn.Server(uvicorn.Config(app, port=port, log_config=None, lifespan=lifespan))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        wait_until(lambda: server.started)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join()
