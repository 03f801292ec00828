"""Peers of the ingestion API: one app only checks each text, the other commits each text separately."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import cast

import orjson
from fastapi import FastAPI, Request, Response
from psycopg import AsyncConnection
from pydantic import SecretStr

from core.connections import make_async_engine
from core.datasets import load_datasets
from core.settings import DatabaseSettings
from ingestion_api.dependencies import read_body
from ingestion_api.texts.repository import insert_texts
from ingestion_api.texts.submissions import NewText, parse_submission

_DATASETS = load_datasets(None)


def no_op() -> FastAPI:
    """Make an app that checks a text and does not store it: the lowest possible cost."""
    app = FastAPI()

    @app.post("/texts", status_code=201)
    async def create_text(request: Request) -> Response:
        return _receipt(parse_submission(await read_body(request), _DATASETS))

    return app


def commit_each() -> FastAPI:
    """Make an app that stores each text in a separate transaction."""
    settings = DatabaseSettings(url=SecretStr(os.environ["DATABASE_URL"]))
    engine = make_async_engine(settings, "bench")
    # The pool fails a request that waits for 5 s. On a busy machine 256 clients wait longer.
    connections = asyncio.Semaphore(settings.pool_size)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await engine.dispose()

    app = FastAPI(lifespan=lifespan)

    @app.post("/texts", status_code=201)
    async def create_text(request: Request) -> Response:
        row = parse_submission(await read_body(request), _DATASETS)
        async with connections, engine.connect() as connection:
            raw = cast(AsyncConnection, (await connection.get_raw_connection()).driver_connection)
            await insert_texts(raw, [row], _DATASETS)
            await raw.commit()
        return _receipt(row)

    return app


def _receipt(row: NewText) -> Response:
    receipt = {"id": row.id, "status": "pending", "duplicate": False}
    return Response(orjson.dumps(receipt), 201, {"Location": f"/texts/{row.id}"}, "application/json")
