"""A whole system that exports to a receiver of the test's own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.e2e.house import House, house
from tests.trace.receiver import Receiver, receiver

EXPORTED = {
    "VX11_SERVICES": "madre,host,keeper,tentaculo_link",
    "OTEL_TRACES_SAMPLER": "parentbased_traceidratio",
    "OTEL_METRIC_EXPORT_INTERVAL": "500",
    "OTEL_RESOURCE_ATTRIBUTES": "deployment.environment.name=test",
}


@contextmanager
def exporting(home: Path, ratio: str) -> Iterator[tuple[House, Receiver]]:
    """`ratio` of the traces go to the receiver."""
    with (
        receiver() as got,
        house(home, {**EXPORTED, "OTEL_EXPORTER_OTLP_ENDPOINT": got.url, "OTEL_TRACES_SAMPLER_ARG": ratio}) as made,
    ):
        yield made, got
