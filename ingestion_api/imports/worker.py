"""The two import tasks of each ingestion process: running imports, one at a time, and deleting old ones."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

import anyio
import psycopg
import structlog
from sqlalchemy.exc import OperationalError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine

from core.datasets import Datasets
from core.settings import DatabaseSettings
from core.web.problems import Problem
from ingestion_api import metrics
from ingestion_api.bulk.pipes import NoProgress, run_beside, run_watched
from ingestion_api.imports import repository
from ingestion_api.imports.repository import Claim
from ingestion_api.imports.run import RunResult, run_import
from ingestion_api.settings import IngestionSettings

log = structlog.get_logger()

_POLL_SECONDS = 1.0
_MOST_CRASHES = 3
_DAY_SECONDS = 86400


@asynccontextmanager
async def importing(
    engine: AsyncEngine, database: DatabaseSettings, settings: IngestionSettings, datasets: Datasets
) -> AsyncIterator[asyncio.Event]:
    """Run imports until the block ends; set the event that it gives whenever an upload is complete.

    An import under way when the block ends is put back, with the batches that it has stored.
    """
    completed = asyncio.Event()
    worker = _Worker(engine, database, settings, datasets, anyio.CapacityLimiter(1))
    tasks = [
        asyncio.create_task(_for_ever(worker.run_next, completed)),
        asyncio.create_task(_for_ever(worker.clear_up, asyncio.Event())),
    ]
    try:
        yield completed
    finally:
        for task in tasks:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


async def _for_ever(step: Callable[[], Awaitable[bool]], woken: asyncio.Event) -> None:
    """Repeat `step` while it returns True. When it returns False, wait for the event or a second."""
    while True:
        woken.clear()
        try:
            if await step():
                continue
        except (SQLAlchemyError, OSError) as error:
            log.warning("imports.database_away", error=type(error).__name__)
        except Exception:
            # After any error the next import must run.
            log.exception("imports.crashed")
        with suppress(TimeoutError):
            async with asyncio.timeout(_POLL_SECONDS):
                await woken.wait()


@dataclass(frozen=True, slots=True)
class _Worker:
    engine: AsyncEngine
    database: DatabaseSettings
    settings: IngestionSettings
    datasets: Datasets
    limiter: anyio.CapacityLimiter

    async def run_next(self) -> bool:
        """Run the next import; False if there is none, or it was put back."""
        claim = await repository.claim_import(self.engine, self.settings.import_lease_seconds)
        if claim is None:
            return False
        if claim.crashes >= _MOST_CRASHES:
            log.error("import.given_up", import_id=str(claim.id), last_row=claim.last_row)
            metrics.IMPORTS.labels("crashed").inc()
            detail = f"The process that runs it has ended {claim.crashes} times behind row {claim.last_row}."
            await repository.give_up(self.engine, claim, Problem(detail, status=422, code="import_crashed"))
            return True
        log.info("import.started", import_id=str(claim.id), after_row=claim.last_row)
        return await self._run(claim)

    async def _run(self, claim: Claim) -> bool:
        """Run an import; put it back if the run is interrupted."""
        crashed = False
        try:
            with metrics.IMPORT_SECONDS.time():
                # Losing the claim, or being cancelled, kills the process that runs it.
                outcome = await run_beside(self._run_in_process(claim), self._hold(claim)) or RunResult(None, {})
        except NoProgress as problem:
            # Do not repeat the import: it would take as long.
            log.error("import.stuck", import_id=str(claim.id), last_row=claim.last_row)
            metrics.IMPORTS.labels("failed").inc()
            await repository.give_up(self.engine, claim, problem)
            return True
        except psycopg.OperationalError as error:
            log.warning("import.interrupted", import_id=str(claim.id), error=type(error).__name__)
        except Exception:
            crashed = True
            log.exception("import.crashed", import_id=str(claim.id))
        except asyncio.CancelledError:
            with suppress(SQLAlchemyError, OSError):  # then the lease runs out
                await repository.release_claim(self.engine, claim, crashed=False)
            raise
        else:
            _observe(claim, outcome)
            return True
        await self._release(claim, crashed=crashed)
        return False

    async def _run_in_process(self, claim: Claim) -> RunResult:
        arguments = claim, self.datasets, self.database, self.settings
        seconds = self.settings.worker_seconds
        return await run_watched(run_import, *arguments, limiter=self.limiter, seconds=seconds)

    async def _hold(self, claim: Claim) -> None:
        """Renew a claim until it is lost. During an outage the run itself fails."""
        lease_seconds = self.settings.import_lease_seconds
        held = True
        while held:
            await asyncio.sleep(lease_seconds / 6)
            with suppress(OperationalError, OSError):
                held = await repository.renew_claim(self.engine, claim, lease_seconds)

    async def _release(self, claim: Claim, *, crashed: bool) -> None:
        """Put an import back as soon as the database is available."""
        while True:
            try:
                return await repository.release_claim(self.engine, claim, crashed=crashed)
            except (SQLAlchemyError, OSError):
                await asyncio.sleep(_POLL_SECONDS)

    async def clear_up(self) -> bool:
        """End expired uploads, and delete a part of a body or an import; False if there was none to delete."""
        seconds = self.settings.import_expire_seconds
        detail = f"The client did not continue the upload for {seconds:g} seconds."
        expired = Problem(detail, status=410, code="upload_expired")
        if count := await repository.expire_uploads(self.engine, seconds, expired):
            log.info("imports.expired", imports=count)
        dropped = await repository.drop_bodies(self.engine)
        return await repository.drop_old(self.engine, self.settings.import_keep_days * _DAY_SECONDS) or dropped


def _observe(claim: Claim, outcome: RunResult) -> None:
    state = outcome.state or "lost"
    log.info("import.ended", import_id=str(claim.id), state=str(state), **outcome.counts)
    metrics.IMPORTS.labels(str(state)).inc()
    metrics.count_submissions(outcome.counts)
