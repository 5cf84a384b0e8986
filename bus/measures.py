"""Numbers as OpenTelemetry wants them: what the call records tell by its messaging conventions, and what `/metrics` has. Pure."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Literal, NamedTuple

PROCESS = "messaging.process.duration"
CONSUMED = "messaging.client.consumed.messages"
SENT = "messaging.client.sent.messages"
DOOR = "vx11_http_request_duration_seconds"
DOOR_SEMANTIC = "http.server.request.duration"
BOUNDS_S = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
"""As the messaging conventions advise."""
SERIES_MOST = 2_000
"""Labels come from subjects, which strangers can make up: more go together under `other`."""
OTHER = (("messaging.system", "nats"), ("messaging.destination.name", "other"))

Labels = tuple[tuple[str, str], ...]


class Spread(NamedTuple):
    """A histogram: `counts` has one more than `bounds`."""

    labels: Mapping[str, str]
    bounds: Sequence[float]
    counts: Sequence[int]
    total: float


@dataclass(frozen=True)
class Measure:
    """One number with all its labels; `spreads` when it is a histogram."""

    name: str
    kind: Literal["gauge", "counter", "histogram"]
    help: str
    unit: str = "1"
    values: Sequence[tuple[Mapping[str, str], float]] = ()
    spreads: Sequence[Spread] = ()


@dataclass
class Tally:
    """What the log adds up to, whatever is sampled. Call records that were shed are not in it."""

    _counts: dict[Labels, list[int]] = field(default_factory=dict)
    _totals: dict[Labels, float] = field(default_factory=dict)
    _sent: dict[Labels, int] = field(default_factory=dict)

    def stored(self, subject: str) -> None:
        """An event is in the log."""
        labels = _labels(subject, "publish", "")
        labels = labels if labels in self._sent or len(self._sent) < SERIES_MOST else OTHER
        self._sent[labels] = self._sent.get(labels, 0) + 1

    def handled(self, record: Mapping[str, Any]) -> None:
        """A call record. Raises KeyError, TypeError or ValueError for what is none; those of the door are counted by it."""
        if record.get("http"):
            return
        subject, code = str((record.get("event") or record)["subject"]), str(record["code"])
        seconds = float(record["took_ms"]) / 1e3
        labels = _labels(subject, "process", "" if code == "ok" else code)
        labels = labels if labels in self._counts or len(self._counts) < SERIES_MOST else OTHER
        counts = self._counts.setdefault(labels, [0] * (len(BOUNDS_S) + 1))
        counts[bisect_left(BOUNDS_S, seconds)] += 1
        self._totals[labels] = self._totals.get(labels, 0.0) + seconds

    def measures(self) -> list[Measure]:
        spreads = [Spread(dict(labels), BOUNDS_S, counts, self._totals[labels]) for labels, counts in self._counts.items()]
        handled = [(dict(labels), float(sum(counts))) for labels, counts in self._counts.items()]
        sent = [(dict(labels), float(count)) for labels, count in self._sent.items()]
        found = [
            Measure(PROCESS, "histogram", "How long handlers took.", "s", spreads=spreads),
            Measure(CONSUMED, "counter", "Requests and events that were handled.", "{message}", handled),
            Measure(SENT, "counter", "Events that were stored.", "{message}", sent),
        ]
        return [measure for measure in found if measure.values or measure.spreads]


def _labels(subject: str, operation: str, error: str) -> Labels:
    made = (("messaging.system", "nats"), ("messaging.destination.name", subject), ("messaging.operation.name", operation))
    return (*made, ("error.type", error)) if error else made


def measures_of(families: Iterable[Mapping[str, Any]]) -> list[Measure]:
    """Those of `/metrics`, under the same names; the door's latency under OpenTelemetry's. What is NaN was not observed."""
    return [made for family in families if (made := _measure(family)).values or made.spreads]


def _measure(family: Mapping[str, Any]) -> Measure:
    name, kind, told = str(family["name"]), family["kind"], str(family["help"])
    unit = "s" if "_seconds" in name else "1"
    if kind == "histogram":
        spreads = _spreads(name, family["samples"])
        return Measure(DOOR_SEMANTIC if name == DOOR else name, "histogram", told, unit, spreads=spreads)
    values = [(labels, float(value)) for _, value, labels in family["samples"] if value is not None and not math.isnan(value)]
    return Measure(name.removesuffix("_total"), "counter" if kind == "counter" else "gauge", told, unit, values)


def _spreads(name: str, samples: Iterable[tuple[str, float, dict[str, str]]]) -> list[Spread]:
    """Prometheus counts what is below each bound, OpenTelemetry what is between two."""
    buckets: dict[Labels, list[tuple[float, int]]] = {}
    totals: dict[Labels, float] = {}
    for sample, value, told in samples:
        labels = dict(told)
        bound = labels.pop("le", "")
        key = tuple(labels.items())
        if sample == f"{name}_bucket":
            buckets.setdefault(key, []).append((math.inf if bound == "+Inf" else float(bound), int(value)))
        elif sample == f"{name}_sum":
            totals[key] = float(value)
    made = []
    for key, cumulated in buckets.items():
        cumulated.sort()
        below = [0, *(count for _, count in cumulated)]
        counts = [after - before for before, after in pairwise(below)]
        bounds = [bound for bound, _ in cumulated if bound != math.inf]
        made.append(Spread({_semantic(label): text for label, text in key}, bounds, counts, totals.get(key, 0.0)))
    return made


def _semantic(label: str) -> str:
    return {"route": "http.route", "method": "http.request.method"}.get(label, label)
