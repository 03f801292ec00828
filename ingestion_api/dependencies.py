"""Dependencies of the endpoints: datasets, a database connection, and the body."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

from fastapi import Depends, Query, Request
from sqlalchemy.ext.asyncio import AsyncConnection
from starlette.requests import ClientDisconnect

from core.datasets import Datasets
from core.tables.rows import ROW_BYTES
from core.web.openapi import DATASET_NAME
from core.web.problems import Problem, TooLarge, Unavailable, UnsupportedType
from core.web.server import http_settings

_DATABASE_SECONDS = 5.0
_LENGTH_DIGITS = 15


async def get_datasets(request: Request) -> Datasets:
    """Return the datasets that the settings define."""
    datasets: Datasets = request.app.state.datasets
    return datasets


async def get_connection(request: Request) -> AsyncIterator[AsyncConnection]:
    """Lend a connection to one request.

    Raises:
        Unavailable: the database does not answer in time.
    """
    try:
        async with asyncio.timeout(_DATABASE_SECONDS), request.app.state.engine.connect() as connection:
            yield connection
    except TimeoutError:
        raise Unavailable("The database is slow.", code="database_slow") from None


lend_connection = asynccontextmanager(get_connection)


class BodyCut(Exception):
    """The client is gone before the end of its body."""


class BodyTimeout(Problem):
    """The client sends too slowly."""

    status = 408
    code = "body_timeout"

    def __init__(self, seconds: float, headers: dict[str, str] | None = None) -> None:
        super().__init__(f"Nothing came for {seconds:g} seconds.", headers=headers)


def stream_body(request: Request) -> AsyncIterator[bytes]:
    """Yield the parts of a body as they come; raises as `receive_parts`."""
    return receive_parts(request.stream(), http_settings().body_seconds)


async def receive_parts(stream: AsyncIterator[bytes], idle_seconds: float) -> AsyncIterator[bytes]:
    """Yield the parts of a body.

    Raises:
        BodyTimeout: nothing came for so long.
        BodyCut: the client is gone.
    """
    while True:
        try:
            async with asyncio.timeout(idle_seconds):
                part = await anext(stream, None)
        except TimeoutError:
            raise BodyTimeout(idle_seconds) from None
        except ClientDisconnect:
            raise BodyCut from None
        if part is None:
            return
        yield part


def require_length(request: Request, limit_bytes: int) -> None:
    """Check the announced length of a body, before its client is asked to send it.

    Raises:
        TooLarge: Content-Length is over the limit.
    """
    length = request.headers.get("content-length", "0")  # the server lets only digits pass
    if len(length) > _LENGTH_DIGITS or int(length) > limit_bytes:
        raise TooLarge(f"The body is longer than {limit_bytes} bytes.")


async def read_body(request: Request, limit_bytes: int = ROW_BYTES) -> bytes:
    """Return the whole body of a request; the default limit is that of a single text.

    Raises:
        UnsupportedType: it is compressed.
        TooLarge: it is over the limit, whether or not Content-Length says so.
    """
    if request.headers.get("content-encoding", "identity").strip().lower() != "identity":
        raise UnsupportedType("This body must come without Content-Encoding.")
    require_length(request, limit_bytes)
    parts: list[bytes] = []
    size = 0
    async for part in request.stream():
        size += len(part)
        if size > limit_bytes:
            raise TooLarge(f"The body is longer than {limit_bytes} bytes.")
        parts.append(part)
    return b"".join(parts)


DatasetsDep = Annotated[Datasets, Depends(get_datasets)]
ConnectionDep = Annotated[AsyncConnection, Depends(get_connection)]
DatasetParameter = Annotated[
    str | None, Query(description="One dataset; without it all of them.", json_schema_extra=DATASET_NAME)
]
