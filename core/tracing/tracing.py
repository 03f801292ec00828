"""The ids of traces and spans, and how they travel between processes."""

import random
import time
from collections.abc import Iterable, Mapping, MutableMapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import UUID

import structlog
from opentelemetry.context import Context
from opentelemetry.trace import (
    INVALID_SPAN,
    INVALID_SPAN_CONTEXT,
    Span,
    SpanContext,
    SpanKind,
    StatusCode,
    TraceFlags,
    get_current_span,
)
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from core.settings import TracingSettings

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


Scope = MutableMapping[str, Any]  # of ASGI; core imports the web framework in core.web only

if TYPE_CHECKING:  # it loads what sends spans
    from core.tracing.spans import Spans

Attributes = Mapping[str, str | bool | int | float]

# The bits of a text's id that are as good as random: below its variant.
_RANDOM_BITS = 2**62
# Where a request's scope has its span, for processes that work for it.
TRACEPARENT = "traceparent"
# Where it has what `note_step` noted: to be set again for a request that does the same.
STEP = "traced_step"
_LEAST_ERROR = 500


class Interval(NamedTuple):
    """Something that took time, in ns since 1970."""

    name: str
    started_ns: int
    ended_ns: int


class _Step(NamedTuple):
    """What a request does in the life of a text."""

    name: str
    text_id: UUID
    attributes: Attributes


class Tracing:
    """What this process does about traces. While tracing is off, every method does nothing.

    Hot paths ask `on` first and save the call.
    """

    def __init__(self) -> None:
        self.on = False
        self._limit = 0
        self._share = 0.0
        self._made: Spans | None = None
        self._request: SpanContext | None = None

    def configure(self, settings: TracingSettings, program: str) -> None:
        """Begin to send spans, if the settings say where to; in each process, once it is forked."""
        if settings.exporter_otlp_endpoint is None or self.on:
            return
        from core.tracing.spans import Spans

        self._made = Spans(settings.exporter_otlp_endpoint, program)
        self._share = settings.traces_sampler_arg
        self._limit = round(self._share * _RANDOM_BITS)
        self.on = True

    def stop(self) -> None:
        """Send what is waiting, within a few seconds, and nothing more; while tracing is off, do nothing."""
        spans, self._made, self.on = self._made, None, False
        if spans is not None:
            spans.stop()

    def flush(self) -> None:
        """Send what is waiting, from a process that may be killed at any time; while off, do nothing."""
        if self._made is not None:
            self._made.flush()

    def traces(self, text_id: UUID) -> bool:
        """Whether this text's life is traced: each process says the same."""
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
        """Add a step in a text's life that ends now, by default; `link` is what it was a part of."""
        if self._made is not None and self.traces(text_id):
            ended_ns = ended_ns or time.time_ns()
            links = [link] if link else []
            self._made.add(name, root_of(text_id), started_ns, ended_ns, attributes=attributes, links=links)

    def add_life(self, text_id: UUID, started_ns: int, attributes: Attributes) -> None:
        """Add the span of which all steps are parts, once in a text's life."""
        if self._made is not None and self.traces(text_id):
            self._made.add_root(text_id, "text", started_ns, time.time_ns(), attributes)

    def add_batch(
        self,
        name: str,
        text_ids: Iterable[UUID],
        started_ns: int,
        parts: Sequence[Interval],
        attributes: Attributes,
        error: str | None = None,
    ) -> SpanContext:
        """Add work on many texts, with its parts, and with links to those of its texts that are traced.

        It is a part of the request that `work_for` named, or else a trace of its own.
        """
        if self._made is None:
            return INVALID_SPAN_CONTEXT
        links = [root_of(id_) for id_ in text_ids if self.traces(id_)]
        now = time.time_ns()
        batch = self._made.add(
            name, self._request, started_ns, now, attributes=attributes, links=links, error=error
        )
        for part in parts:
            self._made.add(part.name, batch, part.started_ns, part.ended_ns)
        return batch

    def work_for(self, traceparent: str | None) -> None:
        """Note for whose request this process works from now on: what `scope[TRACEPARENT]` said in another one."""
        request = read_traceparent(traceparent)
        self._request = request if request is not None and request.trace_flags.sampled else None

    def begin_request(self, scope: Scope, request_id: str) -> "RequestTrace":
        """Begin the span of a request, as a part of what its client traces, if it does."""
        headers = (value.decode("latin-1") for name, value in scope["headers"] if name == b"traceparent")
        parent = read_traceparent(next(headers, None))
        # Not for secrets.
        is_recorded = parent.trace_flags.sampled if parent else random.random() < self._share  # noqa: S311
        if self._made is None:
            return RequestTrace(self, INVALID_SPAN, time.time_ns())
        span = self._made.begin("request", parent, SpanKind.SERVER, record=is_recorded)
        span.set_attributes({"http.request.method": scope["method"], "request.id": request_id})
        context = span.get_span_context()
        structlog.contextvars.bind_contextvars(
            trace_id=f"{context.trace_id:032x}", span_id=f"{context.span_id:016x}"
        )
        scope[TRACEPARENT] = write_traceparent(context)
        return RequestTrace(self, span, time.time_ns())


class RequestTrace:
    """The span of one request, and what the request does in the life of a text."""

    def __init__(self, tracing: Tracing, span: Span, started_ns: int) -> None:
        self._tracing = tracing
        self._span = span
        self._started_ns = started_ns

    def end(self, scope: Scope, route: str, status: int) -> None:
        """End it, with the answer's status; 0 is none."""
        if not self._tracing.on:
            return  # the program is stopping
        step: _Step | None = scope.get(STEP)
        if step is not None and status and status < _LEAST_ERROR:
            self._add_step(step)
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
    """Note what a request does in the life of a text; it becomes a span when the answer is sent."""
    scope[STEP] = _Step(name, text_id, attributes)


tracing = Tracing()
