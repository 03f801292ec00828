"""Runs a job so that an outage pauses it, and so that everybody can see why it stands still."""

from collections.abc import Awaitable, Callable

import psycopg
import structlog
from sqlalchemy.exc import SQLAlchemyError

from uploader import metrics
from uploader.argilla_errors import ArgillaError
from uploader.backoff import Backoff

log = structlog.get_logger()


class Guard:
    """One job of one dataset: its pause during an outage, and the reason while it stands still."""

    def __init__(self, dataset: str, job: str, backoff: Backoff) -> None:
        self.backoff = backoff
        self.reason: str | None = None
        self._dataset = dataset
        self._job = job
        self._kind: str | None = None

    async def run(self, work: Callable[[], Awaitable[None]]) -> None:
        """Do the work unless it pauses; when it fails, begin a pause."""
        if self.backoff.is_on():
            return
        try:
            await work()
        except ArgillaError as error:
            self._stand_still(type(error).__name__.lower(), str(error))
        except (SQLAlchemyError, psycopg.Error) as error:
            # Not the message: a statement's may quote texts.
            self._stand_still("database", f"Postgres: {type(error).__name__}")
        except Exception as error:
            log.exception("job.crashed", dataset=self._dataset, job=self._job)
            self._stand_still("crash", f"a mistake in the uploader: {type(error).__name__}")
        else:
            self.go_on()

    def _stand_still(self, kind: str, reason: str) -> None:
        # The work may have begun the pause itself.
        if not self.backoff.is_on():
            self.backoff.fail()
        if reason != self.reason:
            log.warning("job.stopped", dataset=self._dataset, job=self._job, kind=kind, reason=reason)
        self._show(kind)
        self.reason = reason

    def go_on(self) -> None:
        """Note that the job gets ahead; long work calls this on its way, to be shown as running again."""
        if self.reason is not None:
            log.info("job.resumed", dataset=self._dataset, job=self._job)
        self._show(None)
        self.backoff.succeed()
        self.reason = None

    def _show(self, kind: str | None) -> None:
        if self._kind not in {None, kind}:
            metrics.JOB_STOPPED.labels(self._dataset, self._job, self._kind).set(0)
        if kind is not None:
            metrics.JOB_STOPPED.labels(self._dataset, self._job, kind).set(1)
        self._kind = kind
