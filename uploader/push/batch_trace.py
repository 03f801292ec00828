"""The spans of a batch on its way to Argilla, and those of its texts."""

from collections.abc import Sequence
from uuid import UUID

from core.tracing.tracing import Attributes, Interval, tracing
from uploader.argilla.records import PendingText
from uploader.push.deliver import Outcome, kind_of

_NS = 1_000_000_000


def trace_batch(
    dataset: str, claimed_ns: int, steps: Sequence[Interval], texts: Sequence[PendingText], outcome: Outcome | None
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
            tracing.add_life(text.id, int(text.received_at.timestamp() * _NS), {"dataset": dataset})


def _what_became(text_id: UUID, outcome: Outcome) -> str:
    reason = outcome.failed.get(str(text_id))
    return "uploaded" if reason is None else kind_of(reason)
