"""Asks the serving API which forgotten texts its files no longer hold, so that a finished request ends by itself.

The serving API only reads Postgres, so it cannot store that there. Of several serving processes, the one that
answers speaks for all.
"""

import httpx
import structlog
from sqlalchemy.ext.asyncio import AsyncEngine

from core.forgetting import store_files_seen, waits_for_files
from uploader.settings import ForgottenFilesSettings

log = structlog.get_logger()

_TIMEOUT_SECONDS = 30


class FilesWatch:
    """Closes the steps `replica` and `snapshots` of forget requests. Does nothing without SERVING_URL."""

    def __init__(self, engine: AsyncEngine, settings: ForgottenFilesSettings) -> None:
        self._engine = engine
        self._settings = settings
        self._failure: str | None = None  # as logged last

    async def run(self) -> None:
        """Ask once, if a request waits for the answer.

        Raises:
            sqlalchemy.exc.SQLAlchemyError, psycopg.Error: Postgres is away.
        """
        if self._settings.url is None:
            return
        async with self._engine.connect() as connection:
            if not await connection.run_sync(waits_for_files):
                return
        try:
            async with httpx.AsyncClient(timeout=_TIMEOUT_SECONDS, headers=self._settings.headers) as http:
                answer = await http.get(f"{str(self._settings.url).rstrip('/')}/forgotten")
                seen = answer.raise_for_status().json()
        except httpx.HTTPStatusError as error:
            self._warn(f"the serving API answered {error.response.status_code}")
            return
        except (httpx.TransportError, ValueError) as error:
            self._warn(f"the serving API does not answer: {type(error).__name__}")
            return
        self._failure = None
        async with self._engine.begin() as connection:
            await connection.run_sync(store_files_seen, seen)

    def _warn(self, failure: str) -> None:
        if failure != self._failure:
            hint = "see SERVING_URL and SERVING_API_KEY (a key with the scope admin); forget requests stay open"
            log.warning("forget.files_unknown", reason=failure, hint=hint)
        self._failure = failure
