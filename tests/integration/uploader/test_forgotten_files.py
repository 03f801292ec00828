"""Forget requests of labelled texts end by themselves: the uploader asks a real serving API about its files."""

import asyncio
from pathlib import Path
from typing import Any

import psycopg
import structlog
from pydantic import HttpUrl, SecretStr
from sqlalchemy import Engine, create_engine
from sqlalchemy.ext.asyncio import AsyncEngine

from core.forgetting.service import Traces, forget_texts
from core.settings import DatabaseSettings
from tests.integration.serving_api.labelling import Labeller
from tests.integration.uploader.conftest import RunWithEngine
from tests.programs import free_port, running
from uploader.forgetting import FilesWatch
from uploader.settings import ForgottenFilesSettings

_STEPS = "select replica_at is not null and snapshots_at is not null from forget_requests"


def _forget_a_labelled_text(engine: Engine) -> None:
    labeller = Labeller(engine)
    id_ = labeller.add_text("Zoë Quandt lives in 12 Elm Street")
    labeller.annotate({id_: {"ada": "toxic"}})
    with engine.begin() as connection:
        assert forget_texts(connection, [id_], Traces(), "tester") == [id_]


def _is_done(database_url: str) -> bool:
    with psycopg.connect(database_url) as connection:
        row = connection.execute(_STEPS).fetchone()
    return row == (True,)


def test_a_request_ends_when_the_serving_api_holds_nothing_any_more(
    run: RunWithEngine, database_url: str, tmp_path: Path
) -> None:
    engine = create_engine(DatabaseSettings(url=SecretStr(database_url)).sqlalchemy_url)
    env = {"DATABASE_URL": database_url, "DATA_DIR": str(tmp_path / "data")}
    quick = {"REPLICA_FORGET_SECONDS": "1", "REPLICA_POLL_SECONDS": "0.2"}
    with running("serving_api", env | quick, tmp_path / "serving.log") as serving:
        _forget_a_labelled_text(engine)

        async def watch(engine: AsyncEngine) -> None:
            files = FilesWatch(engine, ForgottenFilesSettings(url=HttpUrl(serving.url)))
            async with asyncio.timeout(60):
                while not _is_done(database_url):
                    await files.run()
                    await asyncio.sleep(0.2)

        run(watch)
    engine.dispose()


def test_a_serving_api_that_is_away_leaves_the_request_open_and_is_logged_once(
    run: RunWithEngine, database_url: str
) -> None:
    engine = create_engine(DatabaseSettings(url=SecretStr(database_url)).sqlalchemy_url)
    settings = ForgottenFilesSettings(url=HttpUrl(f"http://127.0.0.1:{free_port()}"))

    async def watch(engine: AsyncEngine) -> list[Any]:
        files = FilesWatch(engine, settings)
        with structlog.testing.capture_logs() as lines:
            for _ in range(2):
                await files.run()
        return lines

    assert run(watch) == []  # no request waits: the serving API isn't asked
    _forget_a_labelled_text(engine)
    assert [line["event"] for line in run(watch)] == ["forget.files_unknown"]
    assert not _is_done(database_url)
    engine.dispose()
