"""The way of a text so far: its steps, and the times between them."""

from itertools import pairwise
from typing import Any

from sqlalchemy import RowMapping

from ingestion_api.schemas import TraceStep

_STEPS = ("received", "uploaded", "labelled")


def trace_steps(row: RowMapping | dict[str, Any]) -> list[TraceStep]:
    """Return the steps that have happened, of a row with `received_at`, `uploaded_at`, `labelled_at` and `status`.

    In the order of their times: a text that was labelled, and uploaded again since, has its upload last.
    """
    times = sorted((row[f"{step}_at"], step) for step in _STEPS if row[f"{step}_at"] is not None)
    waits = [None, *((later - earlier).total_seconds() for (earlier, _), (later, _) in pairwise(times))]
    steps = [
        TraceStep(step=step, at=at, seconds_since_previous=wait)
        for (at, step), wait in zip(times, waits, strict=True)
    ]
    if row["status"] == "failed":
        steps.append(TraceStep(step="failed", at=None, seconds_since_previous=None))
    return steps
