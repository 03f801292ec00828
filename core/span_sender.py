"""OpenTelemetry's SDK as this platform uses it. Only a process that traces loads it: see core.tracing."""

import os
import random
import threading
from collections.abc import Callable, Sequence
from typing import Any

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanLimits, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.trace.sampling import Decision, Sampler, SamplingResult
from opentelemetry.trace import Link, SpanContext, SpanKind, TraceState, get_current_span
from opentelemetry.util.types import Attributes

# A collector that hangs delays an export, and the end of the program, by this time at most.
_EXPORT_SECONDS = 3
_STOP_SECONDS = 5
_QUEUED_SPANS = 8192
_EVERY_SECONDS = 1
# A batch of texts has this many at most.
_LINKS = 250


class _Ids(RandomIdGenerator):
    """Random ids, except for the first span of a text's trace: its ids follow from the text's."""

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


class _Requests(Sampler):
    """Samples requests: as their client does, or else a share of them. The caller decided on all other spans."""

    def __init__(self, share: float) -> None:
        self._share = share

    def should_sample(
        self,
        parent_context: Context | None,
        trace_id: int,
        name: str,
        kind: SpanKind | None = None,
        attributes: Attributes = None,
        links: Sequence[Link] | None = None,
        trace_state: TraceState | None = None,
    ) -> SamplingResult:
        """Decide on one span."""
        parent = get_current_span(parent_context).get_span_context()
        if kind is not SpanKind.SERVER:
            is_sampled = True
        elif parent.is_valid:
            is_sampled = parent.trace_flags.sampled
        else:
            is_sampled = random.random() < self._share  # noqa: S311 - keeps no secret
        return SamplingResult(Decision.RECORD_AND_SAMPLE if is_sampled else Decision.DROP, attributes)

    def get_description(self) -> str:
        """Return the sampler's name."""
        return f"Requests({self._share})"


class Sender:
    """Sends the spans of its `tracer` in the background; drops them while no collector takes them."""

    def __init__(self, endpoint: str, program: str, share: float) -> None:
        """Send to an OTLP collector over HTTP: `endpoint` is its address without a path."""
        ids = _Ids()
        self._provider = TracerProvider(
            sampler=_Requests(share),
            resource=Resource.create({"service.name": program, "process.pid": os.getpid()}),
            shutdown_on_exit=False,
            id_generator=ids,
            span_limits=SpanLimits(max_links=_LINKS),
        )
        exporter = OTLPSpanExporter(f"{endpoint.rstrip('/')}/v1/traces", timeout=_EXPORT_SECONDS)
        self._processor = BatchSpanProcessor(exporter, _QUEUED_SPANS, _EVERY_SECONDS * 1000)
        self._provider.add_span_processor(self._processor)
        self.tracer = self._provider.get_tracer("annotation-platform")
        self.take_ids = ids.take

    def flush(self) -> None:
        """Send the waiting spans, within a few seconds."""
        _wait_for(self._processor.force_flush)

    def stop(self) -> None:
        """Send the waiting spans, within a few seconds, and drop later ones."""
        _wait_for(self._provider.shutdown)


def _wait_for(work: Callable[[], Any]) -> None:
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(_STOP_SECONDS)
