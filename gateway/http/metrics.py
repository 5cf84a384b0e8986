"""What the gateway counts of itself, and the Prometheus text of that and of everything observed."""

from __future__ import annotations

import math
import time
from bisect import bisect_left
from collections import Counter, deque
from collections.abc import Iterable, Mapping
from typing import NamedTuple

BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
NEWEST = 8_192
"""Requests that percentiles and rates are taken from."""


class Sample(NamedTuple):
    """One line of the text."""

    name: str
    value: float
    labels: Mapping[str, str] = {}


class Family(NamedTuple):
    """A metric with all its samples."""

    name: str
    kind: str
    help: str
    samples: list[Sample]


class Window(NamedTuple):
    """The newest requests of the last `seconds`. Latencies in milliseconds, None without a request."""

    seconds: float
    requests: int
    errors: int
    p50_ms: float | None
    p99_ms: float | None

    @property
    def per_second(self) -> float:
        return self.requests / self.seconds if self.seconds > 0 else 0.0

    @property
    def error_rate(self) -> float:
        return self.errors / self.requests if self.requests else 0.0


class Meter:
    """Counts requests, chat answers and wakes as they happen. `clock`: seconds, monotonic."""

    def __init__(self) -> None:
        self.clock = time.monotonic
        self.began = self.clock()
        self.requests: Counter[tuple[str, str, int]] = Counter()
        self.refused: Counter[str] = Counter()
        self.chats: Counter[str] = Counter()
        self.events: int = 0
        self.wakes: int = 0
        self.wake_ms: float = 0.0
        self._buckets: dict[str, list[int]] = {}
        self._seconds: Counter[str] = Counter()
        self._newest: deque[tuple[float, float, bool]] = deque(maxlen=NEWEST)

    @property
    def total(self) -> int:
        return self.requests.total()

    @property
    def uptime_s(self) -> float:
        return self.clock() - self.began

    def done(self, route: str, method: str, status: int, began: float) -> float:
        """A request has been answered; `began` is what `clock` said when it came. Returns the seconds that it took."""
        now = self.clock()
        took = now - began
        self.requests[route, method, status] += 1
        counts = self._buckets.get(route)
        if counts is None:
            counts = self._buckets[route] = [0] * (len(BUCKETS_S) + 1)
        counts[bisect_left(BUCKETS_S, took)] += 1
        self._seconds[route] += took  # type: ignore[assignment]  # a Counter of floats
        self._newest.append((now, took, status >= 500))
        return took

    def woke(self, wake_ms: float) -> None:
        self.wakes += 1
        self.wake_ms += wake_ms

    def window(self, seconds: float) -> Window:
        """Of the last `seconds`, or of as many as the newest requests reach back."""
        now = self.clock()
        seconds = min(seconds, now - self.began)
        if len(self._newest) == NEWEST:
            seconds = min(seconds, now - self._newest[0][0])
        inside = [(took, failed) for at, took, failed in self._newest if at >= now - seconds]
        took = sorted(took * 1e3 for took, _ in inside)
        return Window(seconds, len(inside), sum(failed for _, failed in inside), quantile(took, 0.5), quantile(took, 0.99))

    def families(self) -> list[Family]:
        """The gateway's own metrics."""
        name = "vx11_http_requests_total"
        counted = [
            Sample(name, count, {"route": route, "method": method, "status": str(status)})
            for (route, method, status), count in sorted(self.requests.items())
        ]
        refused = [Sample("vx11_http_refused_total", n, {"reason": reason}) for reason, n in sorted(self.refused.items())]
        chats = [Sample("vx11_chat_answers_total", n, {"answered_by": who}) for who, n in sorted(self.chats.items())]
        return [
            gauge("vx11_uptime_seconds", "Since the gateway started.", self.uptime_s),
            Family(name, "counter", "Answered requests.", counted),
            self._histogram(),
            Family(
                "vx11_http_refused_total", "counter", "Requests and connections that were refused before any work began.", refused
            ),
            Family("vx11_chat_answers_total", "counter", "Chat answers by who gave them.", chats),
            counter("vx11_http_events_published_total", "Events published through the door.", self.events),
            counter("vx11_http_wakes_total", "Requests that waited for an actor to wake.", self.wakes),
            counter("vx11_http_wake_seconds_total", "Time that requests waited for actors to wake.", self.wake_ms / 1e3),
        ]

    def _histogram(self) -> Family:
        name = "vx11_http_request_duration_seconds"
        samples: list[Sample] = []
        for route, counts in sorted(self._buckets.items()):
            below = 0
            for bound, count in zip((*BUCKETS_S, math.inf), counts, strict=True):
                below += count
                samples.append(Sample(f"{name}_bucket", below, {"route": route, "le": _number(bound)}))
            samples.append(Sample(f"{name}_sum", self._seconds[route], {"route": route}))
            samples.append(Sample(f"{name}_count", below, {"route": route}))
        return Family(name, "histogram", "From the head of a request to its answer.", samples)


def gauge(name: str, help_: str, value: float, **labels: str) -> Family:
    return Family(name, "gauge", help_, [Sample(name, value, labels)])


def counter(name: str, help_: str, value: float) -> Family:
    return Family(name, "counter", help_, [Sample(name, value)])


def quantile(ordered: list[float], q: float) -> float | None:
    """The nearest rank of ordered values; None when there are none."""
    return ordered[max(0, math.ceil(q * len(ordered)) - 1)] if ordered else None


def text(families: Iterable[Family]) -> str:
    """Prometheus text format 0.0.4."""
    lines: list[str] = []
    for family in families:
        lines.append(f"# HELP {family.name} {_one_line(family.help)}")
        lines.append(f"# TYPE {family.name} {family.kind}")
        lines.extend(f"{sample.name}{_labels(sample.labels)} {_number(sample.value)}" for sample in family.samples)
    return "\n".join(lines) + "\n"


def _labels(labels: Mapping[str, str]) -> str:
    if not labels:
        return ""
    return "{" + ",".join(f'{name}="{_escaped(value)}"' for name, value in labels.items()) + "}"


def _escaped(value: str) -> str:
    return _one_line(value).replace('"', r"\"")


def _one_line(value: str) -> str:
    return value.replace("\\", r"\\").replace("\n", r"\n")


def _number(value: float) -> str:
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    return repr(float(value)).removesuffix(".0")
