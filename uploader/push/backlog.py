"""Uploads the pending texts of a dataset, batch by batch."""

import asyncio
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID, uuid4

import structlog

from core.models import AnnotationStatus
from core.tracing import Attributes, Interval, tracing
from uploader import metrics, repository
from uploader.argilla.errors import Gone
from uploader.argilla.records import Answers, CarriedAnswer, PendingText, Suggestion, add_responses, to_record
from uploader.argilla.setup import Prepared
from uploader.dataset import DatasetState
from uploader.leadership import NotLeading
from uploader.push import repository as push_repository
from uploader.push.claiming import QueueStart, claim_texts
from uploader.push.deliver import ArgillaDataset, Delivery, deliver, kind_of
from uploader.runner import JobRunner
from uploader.settings import PushSettings

log = structlog.get_logger()

# Longer than the job's own pause: what cannot be decided about one batch must not hold back the others.
_TEXTS_WAIT_FACTOR = 2


@dataclass
class _Run:
    state: DatasetState
    settings: PushSettings
    runner: JobRunner
    stopping: asyncio.Event
    queue_start: QueueStart
    has_failed: bool = False

    def goes_on(self) -> bool:
        return self.state.leadership.leads and not self.has_failed and not self.stopping.is_set()


async def upload_backlog(
    state: DatasetState,
    settings: PushSettings,
    runner: JobRunner,
    stopping: asyncio.Event,
    queue_start: QueueStart | None = None,
) -> None:
    """Upload until nothing is pending, or annotators have enough, while this process leads the dataset.

    Several batches run concurrently, so that one can be claimed or confirmed during the PUT of another.
    The caller keeps `queue_start` from call to call; without it, the first claim reads the whole queue.

    Raises:
        NotLeading: another uploader leads by now.
        ArgillaError: Argilla is away, or does not let us; the claimed texts are pending again.
        psycopg.Error, sqlalchemy.exc.SQLAlchemyError: Postgres is away; the claim's lease runs out.
    """
    await state.prepare()  # then it is known which definition is in force
    await settle_completion(state, stopping)
    run = _Run(state, settings, runner, stopping, queue_start or QueueStart())
    workers = [_upload_batches(run) for _ in range(state.limit.batch_count)]
    # When one fails, the others finish their current batch: its PUT may be half done.
    for result in await asyncio.gather(*workers, return_exceptions=True):
        if isinstance(result, BaseException):
            raise result


async def _upload_batches(run: _Run) -> None:
    try:
        while run.goes_on():
            async with run.state.limit.batches:
                if not run.goes_on() or not await _upload_next(run):
                    return
            run.runner.go_on()
    except Exception:
        run.has_failed = True
        raise


async def _upload_next(run: _Run) -> bool:
    """Upload the next batch; return False when there is none."""
    state = run.state
    async with state.in_argilla() as prepared:
        await state.argilla.wait_for_circuit()
        claim, claimed_ns = uuid4(), time.time_ns()
        texts = await _claim(run, claim)
        if not texts:
            return False
        try:
            await _upload_batch(state, prepared, claim, claimed_ns, texts)
        except (asyncio.CancelledError, NotLeading) as error:
            reason = "leader_changed" if isinstance(error, NotLeading) else "stopping"
            await _return_claim(state, claim, 0, reason)
            raise
        except Exception:
            await _return_claim(state, claim, _TEXTS_WAIT_FACTOR * run.runner.pause(), "outage")
            raise
        return True


async def _claim(run: _Run, claim: UUID) -> list[PendingText]:
    state, settings = run.state, run.settings
    with metrics.BATCH_STEP_SECONDS.labels(state.name, "claim").time():
        async with state.leadership.transaction(to_change=state.pace.takes_turns) as connection:
            if not state.asks_once:
                await repository.release_held(connection, state.name)
            stale = await run.queue_start.return_stale(connection, state.name)
            texts = await claim_texts(
                connection,
                state.name,
                claim,
                state.pace,
                count=settings.batch_size,
                bytes_=settings.batch_bytes,
                lease_seconds=settings.lease_seconds,
                start=run.queue_start,
            )
    metrics.RETRIED_TEXTS.labels(state.name, "lease_ran_out").inc(stale)
    return texts


async def _upload_batch(
    state: DatasetState, prepared: Prepared, claim: UUID, claimed_ns: int, texts: list[PendingText]
) -> None:
    started = time.monotonic()
    destination = ArgillaDataset(
        state.argilla,
        state.engine,
        state.name,
        prepared.dataset_id,
        state.limit.puts,
        state.leadership.check,
        is_new=all(text.attempts == 0 for text in texts),
    )
    outcome = None
    try:
        outcome = await _deliver(state, prepared, destination, claim, texts)
    finally:
        _trace_batch(state.name, claimed_ns, destination.steps, texts, outcome)
    metrics.BATCH_EXTRA_PUTS.labels(state.name).inc(destination.put_count - 1)
    metrics.BATCH_SECONDS.labels(state.name).observe(time.monotonic() - started)
    metrics.BATCH_TEXTS.labels(state.name).observe(len(texts))


async def _deliver(
    state: DatasetState, prepared: Prepared, destination: ArgillaDataset, claim: UUID, texts: list[PendingText]
) -> Delivery:
    held = await list_answers(state, prepared.dataset_id, texts)
    shows = state.definition.suggestions
    claimed = state.labels if shows == "sender" else frozenset()
    predicted = await _list_predictions(state, texts) if shows == "model" else {}
    made = [to_record(text, prepared.question_id, claimed, predicted.get(text.id)) for text in texts]
    records = [
        add_responses(record, held.get(text.id, {}), state.definition)
        for text, record in zip(texts, made, strict=True)
    ]
    outcome = await deliver(destination, records)
    restored = [a for id_ in outcome.uploaded & destination.restored for a in held[UUID(id_)].values()]
    await _finish(state, prepared.dataset_id, claim, outcome, restored)
    return outcome


async def _list_predictions(state: DatasetState, texts: Sequence[PendingText]) -> dict[UUID, Suggestion]:
    async with state.engine.connect() as connection:
        found = await push_repository.list_predictions(connection, [text.id for text in texts])
    # A label that the settings no longer know would be refused.
    return {id_: suggestion for id_, suggestion in found.items() if suggestion.label in state.labels}


async def list_answers(
    state: DatasetState, argilla_dataset_id: UUID, texts: Sequence[PendingText]
) -> dict[UUID, Answers]:
    """Return the answers to restore with the records of these texts, by text and user.

    Those of annotators whom Argilla does not know stay with us, and count.

    Raises:
        ArgillaError: Argilla cannot list its users.
    """
    ids = [text.id for text in texts if text.attempts]
    if not ids:
        return {}  # they were never uploaded
    async with state.engine.connect() as connection:
        rows = await push_repository.list_carried(connection, argilla_dataset_id, ids)
    carried = [CarriedAnswer(*row) for row in rows]
    if not carried:
        return {}
    answers = assign(carried, await state.argilla.list_usernames(), state.labels)
    kept = len(carried) - sum(map(len, answers.values()))
    if kept:
        log.warning("healing.answers_kept", dataset=state.name, answers=kept, reason="annotator or label unknown")
    metrics.KEPT_ANSWERS.labels(state.name).inc(kept)
    return answers


def assign(
    carried: Iterable[CarriedAnswer], users: Mapping[UUID, str], labels: Collection[str]
) -> dict[UUID, Answers]:
    """Return the answers by text and present user: the user with the annotator's id, or else with the name.

    Of several answers of one user the last one is taken.
    """
    ids = {name: id_ for id_, name in users.items()}
    answers: dict[UUID, Answers] = {}
    for answer in carried:
        user_id = answer.annotator_id if answer.annotator_id in users else ids.get(answer.annotator)
        # Argilla takes a submitted answer only with one of the dataset's labels; drafts may be empty.
        fits = answer.value in labels or answer.status != AnnotationStatus.SUBMITTED
        if user_id is not None and fits:
            answers.setdefault(answer.text_id, {})[user_id] = answer
    return answers


async def _finish(
    state: DatasetState,
    argilla_dataset_id: UUID,
    claim: UUID,
    outcome: Delivery,
    restored: Sequence[CarriedAnswer],
) -> None:
    reasons = {UUID(id_): words for id_, words in outcome.failed.items()}
    with metrics.BATCH_STEP_SECONDS.labels(state.name, "finish").time():
        async with state.engine.begin() as connection:
            if not await repository.is_present_dataset(connection, state.name, argilla_dataset_id):
                raise Gone("the dataset in Argilla was replaced by another one meanwhile", "argilla_dataset_gone")
            await push_repository.adopt(
                connection, argilla_dataset_id, [(a.text_id, a.response_id) for a in restored]
            )
            uploaded = await repository.mark_uploaded(connection, claim, [UUID(id_) for id_ in outcome.uploaded])
            failed = await repository.mark_failed(connection, claim, reasons)
    for id_, words in reasons.items():
        # Without Argilla's words: they may quote the text. They are in `last_error`.
        log.warning("upload.failed", dataset=state.name, text_id=str(id_), kind=kind_of(words))
        metrics.FAILED_TEXTS.labels(state.name, kind_of(words)).inc(failed / len(reasons))
    lost = len(outcome.uploaded) + len(outcome.failed) - uploaded - failed
    if lost:
        log.warning("upload.claim_lost", dataset=state.name, claim=str(claim), texts=lost)
    metrics.LOST_TEXTS.labels(state.name).inc(lost)
    metrics.UPLOADED_TEXTS.labels(state.name).inc(uploaded)
    metrics.RESTORED_ANSWERS.labels(state.name).inc(len(restored))
    log.info("upload.batch_ended", dataset=state.name, claim=str(claim), uploaded=uploaded, failed=failed)


async def _return_claim(state: DatasetState, claim: UUID, wait_seconds: float, reason: str) -> None:
    async with state.engine.begin() as connection:
        returned = await repository.return_claim(connection, claim, wait_seconds)
    metrics.RETRIED_TEXTS.labels(state.name, reason).inc(returned)


async def settle_completion(state: DatasetState, stopping: asyncio.Event) -> None:
    """Correct `completed_at` after the settings changed `answers_wanted`, in steps that survive a restart.

    Raises:
        NotLeading: another uploader leads by now.
        psycopg.Error, sqlalchemy.exc.SQLAlchemyError: Postgres is away.
    """
    while not stopping.is_set():
        async with state.leadership.transaction(to_change=True) as connection:
            if not await push_repository.settle_completion(
                connection, state.name, state.definition.answers_wanted
            ):
                return


def _trace_batch(
    dataset: str,
    claimed_ns: int,
    steps: Sequence[Interval],
    texts: Sequence[PendingText],
    outcome: Delivery | None,
) -> None:
    """Add the spans of a batch that has ended just now; `outcome` is None when it was given back."""
    traced = [text for text in texts if tracing.traces(text.id)]
    if not traced:
        return
    attributes: Attributes = {"dataset": dataset, "texts": len(texts)}
    error = None if outcome else "given back"
    ids = [text.id for text in traced]
    batch = tracing.add_batch("upload batch", ids, claimed_ns, steps, attributes, error)
    if outcome is None:
        return
    # After the last PUT there are only looks at what annotators see.
    put_ns = max((step.ended_ns for step in steps if step.name == "put"), default=claimed_ns)
    for text in traced:
        became: Attributes = {
            "dataset": dataset,
            "outcome": _what_became(text.id, outcome),
            "attempt": text.attempts + 1,
        }
        tracing.add_step("upload", text.id, claimed_ns, put_ns, attributes=became, link=batch)
        tracing.add_step("confirm", text.id, put_ns, attributes=became, link=batch)
        if text.attempts == 0:
            tracing.add_life(text.id, int(text.received_at.timestamp() * 1e9), {"dataset": dataset})


def _what_became(text_id: UUID, outcome: Delivery) -> str:
    reason = outcome.failed.get(str(text_id))
    return "uploaded" if reason is None else kind_of(reason)
