"""A real OTLP/HTTP receiver: an HTTP server in a thread that reads what the exporters send by OpenTelemetry's own messages."""

from __future__ import annotations

import contextlib
import gzip
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

KINDS = {1: "internal", 2: "server", 3: "client", 4: "producer", 5: "consumer"}
ERROR = 2


class Receiver:
    """`status`: what it answers; with another one than 200 it keeps nothing. While it is not `free` it answers nobody."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.status = 200
        self.free = threading.Event()
        self.free.set()
        self.stuck = 0
        self.refused = 0
        self.bodies: list[ExportTraceServiceRequest] = []
        self.numbers: list[ExportMetricsServiceRequest] = []
        self.heads: list[dict[str, str]] = []

    def take(self, path: str, body: bytes, heads: dict[str, str]) -> int:
        self.stuck += not self.free.is_set()
        self.free.wait()
        if self.status != 200:
            self.refused += 1
            return self.status
        self.heads.append(heads)
        if path == "/v1/traces":
            self.bodies.append(ExportTraceServiceRequest.FromString(body))
        else:
            assert path == "/v1/metrics", path
            self.numbers.append(ExportMetricsServiceRequest.FromString(body))
        return 200

    def spans(self, conversation: str = "") -> list[dict[str, Any]]:
        """As `vx11 trace --json` has them, in the order in which they came."""
        found = [
            _document(span, str(_attributes(resource.resource)["service.name"]))
            for body in list(self.bodies)
            for resource in body.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]
        return [span for span in found if not conversation or span["conversation"] == conversation]

    def measured(self) -> dict[str, Any]:
        """The newest of each metric, by name."""
        return {
            metric.name: metric
            for body in list(self.numbers)
            for resource in body.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
        }


def _attributes(holder: Any) -> dict[str, Any]:
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in holder.attributes}


def _document(span: Any, service: str) -> dict[str, Any]:
    attributes = _attributes(span)
    assert span.status.code in (0, ERROR)
    return {
        "trace_id": span.trace_id.hex(),
        "span_id": span.span_id.hex(),
        "parent_id": span.parent_span_id.hex(),
        "name": span.name,
        "kind": KINDS[span.kind],
        "start_us": span.start_time_unix_nano // 1_000,
        "end_us": span.end_time_unix_nano // 1_000,
        "error": span.status.message if span.status.code == ERROR else "",
        "attributes": attributes,
        "service": service,
        "conversation": attributes.get("messaging.message.conversation_id", ""),
    }


@contextmanager
def receiver() -> Iterator[Receiver]:
    """Open until the end of the block, on a port of its own."""

    class Door(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            with contextlib.suppress(ConnectionError):  # who waited too long has gone
                self._answer(body)

        def _answer(self, body: bytes) -> None:
            self.send_response(made.take(self.path, body, dict(self.headers.items())))
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Nothing: the test tells what matters."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Door)
    made = Receiver(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield made
    finally:
        made.free.set()
        server.shutdown()
        thread.join()
        server.server_close()
