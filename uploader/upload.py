"""Uploads the pending texts of a dataset, batch by batch."""

import asyncio
import time
from uuid import UUID, uuid4

import structlog

from uploader import metrics, repository
from uploader.argilla_errors import Stopped
from uploader.argilla_setup import Prepared
from uploader.destination import ArgillaDataset
from uploader.guard import Guard
from uploader.lane import Lane
from uploader.push import Outcome, deliver
from uploader.records import PendingText, to_record
from uploader.settings import PushSettings

log = structlog.get_logger()


async def upload_backlog(lane: Lane, settings: PushSettings, guard: Guard, stopping: asyncio.Event) -> None:
    """Upload until nothing is pending; at most one process does this for a dataset.

    Raises:
        ArgillaError: Argilla is away, or does not let us; the claimed texts were given back.
        psycopg.Error, sqlalchemy.exc.SQLAlchemyError: Postgres is away; the claim runs out by itself.
    """
    while not stopping.is_set() and await lane.lead():
        prepared = await lane.prepare()
        claim = uuid4()
        texts = await _claim(lane, claim, settings)
        if not texts:
            return
        try:
            await _upload_batch(lane, prepared, claim, texts)
        except asyncio.CancelledError:
            await _give_back(lane, claim, 0)
            raise
        except Exception as error:
            if isinstance(error, Stopped):
                lane.prepared = None  # somebody changed something there
            await _give_back(lane, claim, guard.backoff.fail())
            raise
        guard.go_on()


async def _claim(lane: Lane, claim: UUID, settings: PushSettings) -> list[PendingText]:
    async with lane.engine.begin() as connection:
        if not lane.asks_once:
            await repository.release_held(connection, lane.name)
        return await repository.claim_texts(
            connection,
            lane.name,
            claim,
            count=settings.batch_size,
            bytes_=settings.batch_bytes,
            lease_seconds=settings.lease_seconds,
        )


async def _upload_batch(lane: Lane, prepared: Prepared, claim: UUID, texts: list[PendingText]) -> None:
    started = time.monotonic()
    destination = ArgillaDataset(lane.argilla, lane.engine, lane.name, prepared.dataset_id)
    outcome = await deliver(destination, [to_record(text, prepared.question_id, lane.labels) for text in texts])
    await _finish(lane, claim, outcome)
    metrics.BATCH_SECONDS.labels(lane.name).observe(time.monotonic() - started)
    metrics.BATCH_TEXTS.labels(lane.name).observe(len(texts))


async def _finish(lane: Lane, claim: UUID, outcome: Outcome) -> None:
    async with lane.engine.begin() as connection:
        uploaded = await repository.mark_uploaded(connection, claim, [UUID(id_) for id_ in outcome.uploaded])
        reasons = {UUID(id_): words for id_, words in outcome.failed.items()}
        failed = await repository.mark_failed(connection, claim, reasons)
    for id_ in outcome.failed:
        # Without Argilla's words: they may quote the text. They are in `last_error`.
        log.warning("upload.failed", dataset=lane.name, text_id=id_)
    lost = len(outcome.uploaded) + len(outcome.failed) - uploaded - failed
    if lost:
        log.warning("upload.claim_lost", dataset=lane.name, claim=str(claim), texts=lost)
    metrics.UPLOADED_TEXTS.labels(lane.name).inc(uploaded)
    metrics.FAILED_TEXTS.labels(lane.name).inc(failed)
    log.info("upload.batch_ended", dataset=lane.name, claim=str(claim), uploaded=uploaded, failed=failed)


async def _give_back(lane: Lane, claim: UUID, wait_seconds: float) -> None:
    async with lane.engine.begin() as connection:
        returned = await repository.give_back(connection, claim, wait_seconds)
    metrics.RETRIED_TEXTS.labels(lane.name).inc(returned)
