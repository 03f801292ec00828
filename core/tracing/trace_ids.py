"""The ids of traces and spans, and how they travel between processes."""

from uuid import UUID

from opentelemetry.context import Context
from opentelemetry.trace import SpanContext, TraceFlags, get_current_span
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

_SPAN_ID_BITS = 2**64 - 1
_SAMPLED = TraceFlags(TraceFlags.SAMPLED)
_PROPAGATOR = TraceContextTextMapPropagator()


def root_of(text_id: UUID) -> SpanContext:
    """Return the first span of the trace that is a text's life: known to whoever knows the text's id.

    The lower half of a UUID begins with its variant, and so is never 0, which no span may have.
    """
    return SpanContext(text_id.int, text_id.int & _SPAN_ID_BITS, is_remote=True, trace_flags=_SAMPLED)


def read_traceparent(header: str | None) -> SpanContext | None:
    """Return the span that a W3C `traceparent` names; None for none, or one that is no such thing."""
    if header is None:
        return None
    context = get_current_span(_PROPAGATOR.extract({"traceparent": header}, Context())).get_span_context()
    return context if context.is_valid else None


def write_traceparent(context: SpanContext) -> str:
    """Return the W3C `traceparent` that names a span."""
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"
