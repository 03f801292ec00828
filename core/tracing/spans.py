"""Spans as OpenTelemetry makes and sends them. Loaded only by a process that traces: see core.tracing.tracing."""

import os
import threading
from collections.abc import Callable, Iterable, Sequence
from uuid import UUID

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanLimits, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    Span,
    SpanContext,
    SpanKind,
    StatusCode,
    set_span_in_context,
)

from core.tracing.tracing import Attributes, root_of

# A collector that hangs is given up after so long, and so is what a stopping program still has for it.
_EXPORT_SECONDS = 3
_STOP_SECONDS = 5
_QUEUED_SPANS = 8192
_EVERY_SECONDS = 1
# A batch of texts has as many at most.
_LINKS = 250

_NO_PARENT = Context()


class _Ids(RandomIdGenerator):
    """Random ids, but for the first span of a text's trace: its ids follow from the text's."""

    def __init__(self) -> None:
        self._next = threading.local()

    def take(self, root: SpanContext) -> None:
        """Give the next span of this thread these ids."""
        self._next.ids = [root.span_id, root.trace_id]

    def generate_trace_id(self) -> int:
        """Return the id of a new trace."""
        ids: list[int] = getattr(self._next, "ids", [])
        return ids.pop() if len(ids) > 1 else super().generate_trace_id()

    def generate_span_id(self) -> int:
        """Return the id of a new span."""
        ids: list[int] = getattr(self._next, "ids", [])
        return ids.pop() if ids else super().generate_span_id()


class Spans:
    """Makes spans, and sends them in the background; drops them while nobody takes them."""

    def __init__(self, endpoint: str, program: str) -> None:
        """Send to an OTLP collector over HTTP: `endpoint` is its address without a path."""
        self._ids = _Ids()
        self._provider = TracerProvider(
            sampler=ALWAYS_ON,  # what is traced is decided before
            resource=Resource.create({"service.name": program, "process.pid": os.getpid()}),
            shutdown_on_exit=False,
            id_generator=self._ids,
            span_limits=SpanLimits(max_links=_LINKS),
        )
        exporter = OTLPSpanExporter(f"{endpoint.rstrip('/')}/v1/traces", timeout=_EXPORT_SECONDS)
        self._processor = BatchSpanProcessor(exporter, _QUEUED_SPANS, _EVERY_SECONDS * 1000)
        self._provider.add_span_processor(self._processor)
        self._tracer = self._provider.get_tracer("annotation-platform")

    def begin(
        self, name: str, parent: SpanContext | None = None, kind: SpanKind = SpanKind.INTERNAL, *, record: bool
    ) -> Span:
        """Begin a span now; with `record` false it has ids, and is sent nowhere."""
        if record:
            return self._tracer.start_span(name, _below(parent), kind)
        trace_id = parent.trace_id if parent else self._ids.generate_trace_id()
        return NonRecordingSpan(SpanContext(trace_id, self._ids.generate_span_id(), is_remote=False))

    def add(
        self,
        name: str,
        parent: SpanContext | None,
        started_ns: int,
        ended_ns: int,
        *,
        attributes: Attributes | None = None,
        links: Iterable[SpanContext] = (),
        error: str | None = None,
    ) -> SpanContext:
        """Add a span of the past, by times in ns since 1970; without a parent it begins a trace."""
        span = self._tracer.start_span(
            name, _below(parent), attributes=attributes, links=_links(links), start_time=started_ns
        )
        if error is not None:
            span.set_status(StatusCode.ERROR, error)
        span.end(ended_ns)
        return span.get_span_context()

    def add_root(self, text_id: UUID, name: str, started_ns: int, ended_ns: int, attributes: Attributes) -> None:
        """Add the first span of a text's trace, as `add`."""
        self._ids.take(root_of(text_id))
        self.add(name, None, started_ns, ended_ns, attributes=attributes)

    def flush(self) -> None:
        """Send what is waiting, within a few seconds."""
        _wait_for(self._processor.force_flush)

    def stop(self) -> None:
        """Send what is waiting, within a few seconds, and then nothing more."""
        _wait_for(self._provider.shutdown)


def _wait_for(work: Callable[[], object]) -> None:
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(_STOP_SECONDS)


def _below(parent: SpanContext | None) -> Context:
    return set_span_in_context(NonRecordingSpan(parent), _NO_PARENT) if parent else _NO_PARENT


def _links(contexts: Iterable[SpanContext]) -> Sequence[Link]:
    return [Link(context) for context in contexts]
