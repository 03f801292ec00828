"""Traces, off by default: one of each request, and one of each text's life across all programs.

A text's id has as many bits as a trace id, so the id of its trace is its own. Each program adds its steps to that
trace; nothing about it is stored or passed on. The ids also decide which texts are traced, so all programs agree.
Spans hold ids, counts and names of datasets, and no texts. See docs/decisions/0038-observability.md.
"""

import os
import random
import threading
import time
from collections.abc import Callable, Iterable, Mapping, MutableMapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, cast
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

if TYPE_CHECKING:  # only a process that traces loads OpenTelemetry's SDK: 0.2 s and 5 MB
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.id_generator import IdGenerator

Scope = MutableMapping[str, Any]  # of ASGI; core imports the web framework in core.web only
Attributes = Mapping[str, str | bool | int | float]

# A collector that hangs delays an export, and the end of the program, by this time at most.
_EXPORT_SECONDS = 3
_STOP_SECONDS = 5
_QUEUED_SPANS = 8192
_EVERY_SECONDS = 1
# A batch of texts has this many at most.
_LINKS = 250

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


class _Ids(threading.local):
    """OpenTelemetry's IdGenerator: random ids, except for the first span of a text's trace."""

    root: SpanContext | None = None  # the next span of this thread, if its ids are given

    def generate_trace_id(self) -> int:
        return self.root.trace_id if self.root else random.getrandbits(128)

    def generate_span_id(self) -> int:
        return self.root.span_id if self.root else random.getrandbits(64)

    def is_trace_id_random(self) -> bool:
        return True


class Tracing:
    """The spans of this process. While tracing is off, OpenTelemetry's no-op tracer makes them."""

    def __init__(self) -> None:
        self._share = 0.0
        self._tracer: Tracer = NoOpTracer()
        self._ids = _Ids()
        self._provider: TracerProvider | None = None
        self._request: SpanContext | None = None

    def configure(self, settings: TracingSettings, program: str) -> None:
        """Begin to send spans, if the settings have an endpoint. Call it in each process, after a fork."""
        if settings.exporter_otlp_endpoint is not None and self._provider is None:
            self._provider = _make_provider(settings.exporter_otlp_endpoint, program, self._ids)
            self._tracer = self._provider.get_tracer("annotation-platform")
            self._share = settings.traces_sampler_arg

    def stop(self) -> None:
        """Send the waiting spans, within a few seconds, and then turn tracing off."""
        provider, self._provider, self._tracer, self._share = self._provider, None, NoOpTracer(), 0.0
        if provider is not None:
            _wait_for(provider.shutdown)

    def flush(self) -> None:
        """Send the waiting spans, within a few seconds, from a process that may be killed at any time."""
        if self._provider is not None:
            _wait_for(self._provider.force_flush)

    @property
    def is_on(self) -> bool:
        """Whether spans are sent; if not, work on many texts need not build their ids for them."""
        return self._provider is not None

    def traces(self, text_id: UUID) -> bool:
        """Whether this text's life is traced: all processes return the same."""
        return text_id.int % _RANDOM_BITS < self._share * _RANDOM_BITS

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
        if self.traces(text_id):
            self._ids.root = root_of(text_id)
            self._add("text", None, started_ns, attributes=attributes)
            self._ids.root = None

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

    def begin_request(self, scope: Scope, request_id: str) -> Span:
        """Begin the span of a request, below its client's span if the request names one; end it by `end_request`.

        The client decides whether the request is traced; without a client's span, chance does.
        """
        headers = (value.decode("latin-1") for name, value in scope["headers"] if name == b"traceparent")
        parent = read_traceparent(next(headers, None))
        is_traced = parent.trace_flags.sampled if parent else random.random() < self._share  # noqa: S311
        tracer = self._tracer if is_traced else NoOpTracer()
        attributes = {"http.request.method": scope["method"], "request.id": request_id}
        span = tracer.start_span("request", _below(parent), SpanKind.SERVER, attributes)
        context = span.get_span_context()
        if context.is_valid:
            structlog.contextvars.bind_contextvars(
                trace_id=f"{context.trace_id:032x}", span_id=f"{context.span_id:016x}"
            )
            scope[TRACEPARENT] = write_traceparent(context)
        return span

    def end_request(self, span: Span, started_ns: int, scope: Scope, route: str, status: int) -> None:
        """End a request's span, with its step in the life of a text.

        `status` is the response's, 0 without a response.
        """
        step: _Step | None = scope.get(STEP)
        if step is not None and 0 < status < _LEAST_ERROR and self.traces(step.text_id):
            span.add_link(root_of(step.text_id))
            link = span.get_span_context() if span.is_recording() else None
            self.add_step(step.name, step.text_id, started_ns, attributes=step.attributes, link=link)
        if span.is_recording():
            span.update_name(f"{scope['method']} {route}")
            span.set_attributes({"http.route": route, "http.response.status_code": status})
            if status == 0 or status >= _LEAST_ERROR:
                span.set_status(StatusCode.ERROR)
            span.end()


def _below(parent: SpanContext | None) -> Context:
    return set_span_in_context(NonRecordingSpan(parent), _NO_PARENT) if parent else _NO_PARENT


def _make_provider(endpoint: str, program: str, ids: _Ids) -> "TracerProvider":
    """Make what sends spans over OTLP and HTTP in the background, and drops them while no collector takes them.

    `endpoint` is the collector's address without a path.
    """
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import SpanLimits, TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor
    from opentelemetry.sdk.trace.sampling import ALWAYS_ON

    provider = TracerProvider(
        sampler=ALWAYS_ON,  # callers make no span of what is not traced
        resource=Resource.create({"service.name": program, "process.pid": os.getpid()}),
        shutdown_on_exit=False,
        id_generator=cast("IdGenerator", ids),
        span_limits=SpanLimits(max_links=_LINKS),
    )
    exporter = OTLPSpanExporter(f"{endpoint.rstrip('/')}/v1/traces", timeout=_EXPORT_SECONDS)
    provider.add_span_processor(BatchSpanProcessor(exporter, _QUEUED_SPANS, _EVERY_SECONDS * 1000))
    return provider


def _wait_for(work: Callable[[], Any]) -> None:
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(_STOP_SECONDS)


def note_step(scope: Scope, name: str, text_id: UUID, **attributes: str | bool | int | float) -> None:
    """Note what a request does in the life of a text; it becomes a span when the response is sent."""
    scope[STEP] = _Step(name, text_id, attributes)


tracing = Tracing()
