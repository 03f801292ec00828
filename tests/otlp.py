"""A collector of OpenTelemetry traces for tests: takes what the real exporter sends, and decodes it."""

import gzip
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from uuid import UUID

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


@dataclass(frozen=True)
class SentSpan:
    """A span as it was sent."""

    program: str
    pid: int
    name: str
    trace_id: UUID
    span_id: int
    parent_id: int  # 0: none
    started_ns: int
    ended_ns: int
    attributes: dict[str, Any]
    links: list[tuple[UUID, int]]  # trace and span
    is_error: bool


@dataclass
class Collector:
    """What has been sent so far."""

    url: str = ""
    spans: list[SentSpan] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)

    def of(self, trace_id: UUID) -> list[SentSpan]:
        """Return the spans of a trace in the order of their beginnings."""
        return sorted((s for s in self.spans if s.trace_id == trace_id), key=lambda span: span.started_ns)

    def named(self, name: str) -> list[SentSpan]:
        """Return all spans of a name."""
        return [span for span in self.spans if span.name == name]

    def take(self, body: bytes) -> None:
        """Decode an export."""
        self.bodies.append(body)
        for resource_spans in ExportTraceServiceRequest.FromString(body).resource_spans:
            resource = _attributes(resource_spans.resource.attributes)
            for scope_spans in resource_spans.scope_spans:
                self.spans += [_read(resource, span) for span in scope_spans.spans]


def _read(resource: dict[str, Any], span: Any) -> SentSpan:
    return SentSpan(
        resource["service.name"],
        resource["process.pid"],
        span.name,
        UUID(bytes=span.trace_id),
        int.from_bytes(span.span_id),
        int.from_bytes(span.parent_span_id),
        span.start_time_unix_nano,
        span.end_time_unix_nano,
        _attributes(span.attributes),
        [(UUID(bytes=link.trace_id), int.from_bytes(link.span_id)) for link in span.links],
        span.status.code == span.status.STATUS_CODE_ERROR,
    )


def _attributes(pairs: Any) -> dict[str, Any]:
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in pairs}


@contextmanager
def collecting() -> Iterator[Collector]:
    """Give a collector that listens until the block ends."""
    collector = Collector()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            is_right = self.path == "/v1/traces"
            if is_right:
                collector.take(body)
            self.send_response(200 if is_right else 404)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        collector.url = f"http://127.0.0.1:{server.server_address[1]}"
        try:
            yield collector
        finally:
            server.shutdown()
            thread.join()
