"""Traces, off by default: one of each request, and one of each text's life across all programs.

A text's id has as many bits as a trace id, so the id of its trace is its own. Each program adds its steps to that
trace; nothing about it is stored or passed on. The ids also decide which texts are traced, so all programs agree.
Spans hold ids, counts and names of datasets, and no texts. See docs/decisions/0038-observability.md.
"""

import time
from collections.abc import Iterable, Mapping, MutableMapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import UUID

import structlog
from opentelemetry.context import Context
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    NoOpTracer,
    Span,
    SpanContext,
    SpanKind,
    StatusCode,
    TraceFlags,
    Tracer,
    get_current_span,
    set_span_in_context,
)
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from core.settings import TracingSettings

if TYPE_CHECKING:  # it loads OpenTelemetry's SDK
    from core.span_sender import Sender

Scope = MutableMapping[str, Any]  # of ASGI; core imports the web framework in core.web only
Attributes = Mapping[str, str | bool | int | float]

# The bits of a text's id that are as good as random: below its variant.
_RANDOM_BITS = 2**62
_SPAN_ID_BITS = 2**64 - 1
_SAMPLED = TraceFlags(TraceFlags.SAMPLED)
_PROPAGATOR = TraceContextTextMapPropagator()
_NO_PARENT = Context()
# The key of a request's span in its ASGI scope, for processes that work for the request.
TRACEPARENT = "traceparent"
# The key of what `note_step` noted. The cache of whole responses stores it, and sets it again.
STEP = "traced_step"
_LEAST_ERROR = 500


def root_of(text_id: UUID) -> SpanContext:
    """Return the first span of a text's trace, which follows from the text's id.

    The lower half of a UUID begins with its variant, so it is never 0, which is no valid span id.
    """
    return SpanContext(text_id.int, text_id.int & _SPAN_ID_BITS, is_remote=True, trace_flags=_SAMPLED)


def read_traceparent(header: str | None) -> SpanContext | None:
    """Return the span that a W3C `traceparent` names; None for a missing or invalid one."""
    if header is None:
        return None
    context = get_current_span(_PROPAGATOR.extract({"traceparent": header}, Context())).get_span_context()
    return context if context.is_valid else None


def write_traceparent(context: SpanContext) -> str:
    """Return the W3C `traceparent` that names a span."""
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"


class Interval(NamedTuple):
    """A named interval, in ns since 1970."""

    name: str
    started_ns: int
    ended_ns: int


class _Step(NamedTuple):
    """What a request does in the life of a text."""

    name: str
    text_id: UUID
    attributes: Attributes


class Tracing:
    """The spans of this process. While tracing is off, OpenTelemetry's no-op tracer makes them."""

    def __init__(self) -> None:
        self._limit = 0
        self._tracer: Tracer = NoOpTracer()
        self._sender: Sender | None = None
        self._request: SpanContext | None = None

    def configure(self, settings: TracingSettings, program: str) -> None:
        """Begin to send spans, if the settings have an endpoint. Call it in each process, after a fork."""
        if settings.exporter_otlp_endpoint is None or self._sender is not None:
            return
        from core.span_sender import Sender

        share = settings.traces_sampler_arg
        self._sender = Sender(settings.exporter_otlp_endpoint, program, share)
        self._tracer = self._sender.tracer
        self._limit = round(share * _RANDOM_BITS)

    def stop(self) -> None:
        """Send the waiting spans, within a few seconds, and then turn tracing off."""
        sender, self._sender, self._tracer, self._limit = self._sender, None, NoOpTracer(), 0
        if sender is not None:
            sender.stop()

    def flush(self) -> None:
        """Send the waiting spans, from a process that may be killed at any time."""
        if self._sender is not None:
            self._sender.flush()

    def traces(self, text_id: UUID) -> bool:
        """Whether this text's life is traced: all processes return the same."""
        return text_id.int % _RANDOM_BITS < self._limit

    def add_step(
        self,
        name: str,
        text_id: UUID,
        started_ns: int,
        ended_ns: int | None = None,
        *,
        attributes: Attributes | None = None,
        link: SpanContext | None = None,
    ) -> None:
        """Add a step in a text's life, which ends now by default; `link` is the batch or request it belongs to."""
        if self.traces(text_id):
            links = [link] if link else []
            self._add(name, root_of(text_id), started_ns, ended_ns, attributes=attributes, links=links)

    def add_life(self, text_id: UUID, started_ns: int, attributes: Attributes) -> None:
        """Add the span that contains all steps, once in a text's life."""
        if self._sender is not None and self.traces(text_id):
            self._sender.take_ids(root_of(text_id))
            self._add("text", None, started_ns, attributes=attributes)

    def add_batch(
        self,
        name: str,
        text_ids: Iterable[UUID],
        started_ns: int,
        parts: Sequence[Interval],
        attributes: Attributes,
        error: str | None = None,
    ) -> SpanContext:
        """Add work on many texts, with its parts, and with links to its texts that are traced.

        Its parent is the request that `work_for` set; without a request it begins a trace.
        """
        links = [root_of(id_) for id_ in text_ids if self.traces(id_)]
        batch = self._add(name, self._request, started_ns, attributes=attributes, links=links, error=error)
        for part in parts:
            self._add(part.name, batch, part.started_ns, part.ended_ns)
        return batch

    def _add(
        self,
        name: str,
        parent: SpanContext | None,
        started_ns: int,
        ended_ns: int | None = None,
        *,
        attributes: Attributes | None = None,
        links: Iterable[SpanContext] = (),
        error: str | None = None,
    ) -> SpanContext:
        """Add a span of the past; without a parent it begins a trace."""
        span = self._tracer.start_span(
            name,
            _below(parent),
            attributes=attributes,
            links=[Link(context) for context in links],
            start_time=started_ns,
        )
        if error is not None:
            span.set_status(StatusCode.ERROR, error)
        span.end(ended_ns or time.time_ns())
        return span.get_span_context()

    def work_for(self, traceparent: str | None) -> None:
        """Set the request for which this process works from now on, by `scope[TRACEPARENT]` of its process."""
        request = read_traceparent(traceparent)
        self._request = request if request is not None and request.trace_flags.sampled else None

    def begin_request(self, scope: Scope, request_id: str) -> "RequestTrace":
        """Begin the span of a request, below its client's span if the request names one."""
        headers = (value.decode("latin-1") for name, value in scope["headers"] if name == b"traceparent")
        parent = read_traceparent(next(headers, None))
        attributes = {"http.request.method": scope["method"], "request.id": request_id}
        span = self._tracer.start_span("request", _below(parent), SpanKind.SERVER, attributes)
        context = span.get_span_context()
        if context.is_valid:
            structlog.contextvars.bind_contextvars(
                trace_id=f"{context.trace_id:032x}", span_id=f"{context.span_id:016x}"
            )
            scope[TRACEPARENT] = write_traceparent(context)
        return RequestTrace(self, span, time.time_ns())


def _below(parent: SpanContext | None) -> Context:
    return set_span_in_context(NonRecordingSpan(parent), _NO_PARENT) if parent else _NO_PARENT


class RequestTrace:
    """The span of one request, and the request's step in the life of a text."""

    def __init__(self, tracing: Tracing, span: Span, started_ns: int) -> None:
        self._tracing = tracing
        self._span = span
        self._started_ns = started_ns

    def end(self, scope: Scope, route: str, status: int) -> None:
        """End it with the response's status; 0: there was no response."""
        step: _Step | None = scope.get(STEP)
        if step is not None and status and status < _LEAST_ERROR:
            self._add_step(step)
        if self._span.is_recording():
            self._span.update_name(f"{scope['method']} {route}")
            self._span.set_attributes({"http.route": route, "http.response.status_code": status})
            if status == 0 or status >= _LEAST_ERROR:
                self._span.set_status(StatusCode.ERROR)
            self._span.end()

    def _add_step(self, step: _Step) -> None:
        if self._tracing.traces(step.text_id):
            self._span.add_link(root_of(step.text_id))
            link = self._span.get_span_context() if self._span.is_recording() else None
            self._tracing.add_step(
                step.name, step.text_id, self._started_ns, attributes=step.attributes, link=link
            )


def note_step(scope: Scope, name: str, text_id: UUID, **attributes: str | bool | int | float) -> None:
    """Note what a request does in the life of a text; it becomes a span when the response is sent."""
    scope[STEP] = _Step(name, text_id, attributes)


tracing = Tracing()
