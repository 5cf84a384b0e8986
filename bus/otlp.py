"""Spans and numbers as OTLP over HTTP, by OpenTelemetry's own exporters, which read the standard variables themselves.

Imported only by who exports: it brings protobuf and requests along. Everything here waits for the network and belongs into a
thread. The exporters try a batch again for as long as OTEL_EXPORTER_OTLP_TIMEOUT says, 10 s.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from functools import lru_cache

from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    Gauge,
    Histogram,
    HistogramDataPoint,
    Metric,
    MetricExportResult,
    MetricsData,
    NumberDataPoint,
    ResourceMetrics,
    ScopeMetrics,
    Sum,
)
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExportResult
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags

from bus.measures import Measure
from bus.spans import Span

SCOPE = InstrumentationScope("vx11")
KINDS = {
    "server": SpanKind.SERVER,
    "consumer": SpanKind.CONSUMER,
    "producer": SpanKind.PRODUCER,
    "internal": SpanKind.INTERNAL,
}
NS = 1_000
"""Nanoseconds of a microsecond."""
SAMPLED = TraceFlags(TraceFlags.SAMPLED)


class Exporter:
    """`resource`: attributes of every span and number; each actor is a service of its own, unless one name is given for all."""

    def __init__(self, resource: Mapping[str, str], *, service: str = "") -> None:
        self._given = dict(resource)
        self._service = service
        self._spans = OTLPSpanExporter()
        self._metrics = OTLPMetricExporter()
        self._of = lru_cache(256)(self._made_resource)

    def send(self, spans: Sequence[Span]) -> bool:
        """True when the receiver has taken them."""
        return self._spans.export([self._readable(span) for span in spans]) is SpanExportResult.SUCCESS

    def send_measures(self, measures: Sequence[Measure], since: float) -> bool:
        """`since`: when the counting began, seconds since the epoch."""
        now = time.time_ns()
        made = [_metric(measure, round(since * 1e9), now) for measure in measures]
        scoped = ScopeMetrics(scope=SCOPE, metrics=made, schema_url="")
        data = MetricsData([ResourceMetrics(resource=self._of("vx11"), scope_metrics=[scoped], schema_url="")])
        return self._metrics.export(data) is MetricExportResult.SUCCESS

    def close(self) -> None:
        self._spans.shutdown()  # type: ignore[no-untyped-call]
        self._metrics.shutdown()

    def _made_resource(self, service: str) -> Resource:
        return Resource.create({**self._given, "service.name": self._service or service})

    def _readable(self, span: Span) -> ReadableSpan:
        trace = int(span.trace_id, 16)
        return ReadableSpan(
            name=span.name,
            context=SpanContext(trace, int(span.span_id, 16), is_remote=False, trace_flags=SAMPLED),
            parent=SpanContext(trace, int(span.parent_id, 16), is_remote=span.remote, trace_flags=SAMPLED)
            if span.parent_id
            else None,
            resource=self._of(span.service),
            attributes=dict(span.attributes),
            kind=KINDS[span.kind],
            status=Status(StatusCode.ERROR, span.error) if span.error else Status(),
            start_time=span.start_us * NS,
            end_time=span.end_us * NS,
            instrumentation_scope=SCOPE,
        )


def _metric(measure: Measure, since: int, now: int) -> Metric:
    points = [
        NumberDataPoint(attributes=dict(labels), start_time_unix_nano=since, time_unix_nano=now, value=value)
        for labels, value in measure.values
    ]
    if measure.kind == "gauge":
        return Metric(measure.name, measure.help, measure.unit, Gauge(data_points=points))
    if measure.kind == "counter":
        total = Sum(data_points=points, aggregation_temporality=AggregationTemporality.CUMULATIVE, is_monotonic=True)
        return Metric(measure.name, measure.help, measure.unit, total)
    spread = [
        HistogramDataPoint(
            attributes=dict(one.labels),
            start_time_unix_nano=since,
            time_unix_nano=now,
            count=sum(one.counts),
            sum=one.total,
            bucket_counts=list(one.counts),
            explicit_bounds=list(one.bounds),
            min=None,  # type: ignore[arg-type]  # not observed; the field is optional in OTLP
            max=None,  # type: ignore[arg-type]
        )
        for one in measure.spreads
    ]
    return Metric(measure.name, measure.help, measure.unit, Histogram(spread, AggregationTemporality.CUMULATIVE))
