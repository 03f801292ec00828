"""Uploads the pending texts of a dataset, batch by batch."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID, uuid4

import structlog

from core.tracing.tracing import tracing
from uploader import metrics, repository
from uploader.argilla.errors import Gone, Stopped
from uploader.argilla.records import PendingText, to_record
from uploader.argilla.setup import Prepared
from uploader.dataset import Lane
from uploader.leadership import NotLeading
from uploader.pull.completion import settle_completion
from uploader.push.batch_trace import trace_batch
from uploader.push.claiming import claim_texts
from uploader.push.deliver import Outcome, deliver, kind_of
from uploader.push.destination import ArgillaDataset
from uploader.push.restore import Answer, add_responses, adopt, list_answers
from uploader.runner import Guard
from uploader.settings import PushSettings

log = structlog.get_logger()

# Longer than the job's own pause: what cannot be decided about one batch must not hold back the others.
_TEXTS_WAIT_FACTOR = 2


@dataclass
class _Run:
    lane: Lane
    settings: PushSettings
    guard: Guard
    stopping: asyncio.Event
    has_failed: bool = False

    def goes_on(self) -> bool:
        return self.lane.leadership.leads and not self.has_failed and not self.stopping.is_set()


async def upload_backlog(lane: Lane, settings: PushSettings, guard: Guard, stopping: asyncio.Event) -> None:
    """Upload until nothing is pending, or annotators have enough, while this process leads the dataset.

    Some batches are under way at once, so that one can be claimed or confirmed during the PUT of another.

    Raises:
        NotLeading: another uploader leads by now.
        ArgillaError: Argilla is away, or does not let us; the claimed texts were given back.
        psycopg.Error, sqlalchemy.exc.SQLAlchemyError: Postgres is away; the claim runs out by itself.
    """
    await settle_completion(lane, stopping)
    run = _Run(lane, settings, guard, stopping)
    workers = [_upload_batches(run) for _ in range(lane.slots.batch_count)]
    # When one fails, the others end their present batch: its PUT may be half done.
    for result in await asyncio.gather(*workers, return_exceptions=True):
        if isinstance(result, BaseException):
            raise result


async def _upload_batches(run: _Run) -> None:
    try:
        while run.goes_on():
            async with run.lane.slots.batches:
                if not run.goes_on() or not await _upload_next(run):
                    return
            run.guard.go_on()
    except Exception:
        run.has_failed = True
        raise


async def _upload_next(run: _Run) -> bool:
    """Upload the next batch; return False when there is none."""
    lane = run.lane
    prepared = await lane.prepare()
    await lane.argilla.wait_for_circuit()
    claim, claimed_ns = uuid4(), time.time_ns()
    texts = await _claim(lane, claim, run.settings)
    if not texts:
        return False
    try:
        await _upload_batch(lane, prepared, claim, claimed_ns, texts)
    except (asyncio.CancelledError, NotLeading) as error:
        await _give_back(lane, claim, 0, "leader_changed" if isinstance(error, NotLeading) else "stopping")
        raise
    except Exception as error:
        if isinstance(error, Stopped):
            lane.prepared = None  # somebody changed something there
        wait_seconds = _TEXTS_WAIT_FACTOR * run.guard.pause()
        await _give_back(lane, claim, wait_seconds, "outage")
        raise
    return True


async def _claim(lane: Lane, claim: UUID, settings: PushSettings) -> list[PendingText]:
    with metrics.BATCH_STEP_SECONDS.labels(lane.name, "claim").time():
        async with lane.engine.begin() as connection:
            await lane.leadership.confirm(connection, to_change=lane.pace.takes_turns)
            if not lane.asks_once:
                await repository.release_held(connection, lane.name)
            stale = await repository.return_stale_claims(connection, lane.name)
            texts = await claim_texts(
                connection,
                lane.name,
                claim,
                lane.pace,
                count=settings.batch_size,
                bytes_=settings.batch_bytes,
                lease_seconds=settings.lease_seconds,
            )
    metrics.RETRIED_TEXTS.labels(lane.name, "lease_ran_out").inc(stale)
    return texts


async def _upload_batch(
    lane: Lane, prepared: Prepared, claim: UUID, claimed_ns: int, texts: list[PendingText]
) -> None:
    started = time.monotonic()
    destination = ArgillaDataset(
        lane.argilla,
        lane.engine,
        lane.name,
        prepared.dataset_id,
        lane.slots.puts,
        lane.leadership.check,
        is_new=all(text.attempts == 0 for text in texts),
    )
    outcome = None
    try:
        outcome = await _deliver(lane, prepared, destination, claim, texts)
    finally:
        if tracing.on:
            trace_batch(lane.name, claimed_ns, destination.steps, texts, outcome)
    metrics.BATCH_EXTRA_PUTS.labels(lane.name).inc(destination.put_count - 1)
    metrics.BATCH_SECONDS.labels(lane.name).observe(time.monotonic() - started)
    metrics.BATCH_TEXTS.labels(lane.name).observe(len(texts))


async def _deliver(
    lane: Lane, prepared: Prepared, destination: ArgillaDataset, claim: UUID, texts: list[PendingText]
) -> Outcome:
    held = await list_answers(lane, prepared.dataset_id, texts)
    records = [
        add_responses(to_record(text, prepared.question_id, lane.labels), held.get(text.id, {}), lane.definition)
        for text in texts
    ]
    outcome = await deliver(destination, records)
    given_back = [a for id_ in outcome.uploaded & destination.given_back for a in held[UUID(id_)].values()]
    await _finish(lane, prepared.dataset_id, claim, outcome, given_back)
    return outcome


async def _finish(
    lane: Lane,
    argilla_dataset_id: UUID,
    claim: UUID,
    outcome: Outcome,
    given_back: Sequence[Answer],
) -> None:
    reasons = {UUID(id_): words for id_, words in outcome.failed.items()}
    with metrics.BATCH_STEP_SECONDS.labels(lane.name, "finish").time():
        async with lane.engine.begin() as connection:
            if not await repository.is_present_dataset(connection, lane.name, argilla_dataset_id):
                raise Gone("the dataset in Argilla was replaced by another one meanwhile", "argilla_dataset_gone")
            await adopt(connection, argilla_dataset_id, given_back)
            uploaded = await repository.mark_uploaded(connection, claim, [UUID(id_) for id_ in outcome.uploaded])
            failed = await repository.mark_failed(connection, claim, reasons)
    for id_, words in reasons.items():
        # Without Argilla's words: they may quote the text. They are in `last_error`.
        log.warning("upload.failed", dataset=lane.name, text_id=str(id_), kind=kind_of(words))
        metrics.FAILED_TEXTS.labels(lane.name, kind_of(words)).inc(failed / len(reasons))
    lost = len(outcome.uploaded) + len(outcome.failed) - uploaded - failed
    if lost:
        log.warning("upload.claim_lost", dataset=lane.name, claim=str(claim), texts=lost)
    metrics.LOST_TEXTS.labels(lane.name).inc(lost)
    metrics.UPLOADED_TEXTS.labels(lane.name).inc(uploaded)
    metrics.GIVEN_BACK_ANSWERS.labels(lane.name).inc(len(given_back))
    log.info("upload.batch_ended", dataset=lane.name, claim=str(claim), uploaded=uploaded, failed=failed)


async def _give_back(lane: Lane, claim: UUID, wait_seconds: float, reason: str) -> None:
    async with lane.engine.begin() as connection:
        returned = await repository.give_back(connection, claim, wait_seconds)
    metrics.RETRIED_TEXTS.labels(lane.name, reason).inc(returned)
