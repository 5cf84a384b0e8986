"""The numbers: Prometheus text, and the operator's list of the same samples."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from typing import get_args

from pydantic import BaseModel, Field

from gateway.http import costs
from gateway.http.answer import Whole, text_response
from gateway.http.body import query_of
from gateway.http.exchange import Exchange
from gateway.http.metrics import Family, Sample, counter, gauge, text
from gateway.http.observed import CORE, Look
from gateway.http.parts import Parts
from gateway.moment import epoch, rfc3339
from schemas.power import State

PROMETHEUS = "text/plain; version=0.0.4"
LIMIT_MOST = 5_000
WINDOW_S = 300.0
HEALTH = {"up": 1.0, "down": 0.0, "unknown": float("nan")}


class Metric(BaseModel):
    metric_id: str
    ts: str
    metric_name: str
    value: float
    module: str
    dimensions: dict[str, str]


class MetricData(BaseModel):
    """Of the newest requests inside the window; latencies are null when there was none."""

    uptime_seconds: float
    requests_total: int
    requests_per_second: float
    error_rate: float
    p50_latency_ms: float | None
    p99_latency_ms: float | None
    window_seconds: float
    timestamp: str


class Metrics(BaseModel):
    ok: bool
    metrics: list[Metric]
    count: int
    data: MetricData


class MetricQuery(BaseModel):
    name: str | None = Field(default=None, max_length=128)
    window_seconds: float = Field(default=WINDOW_S, gt=0, le=86_400)
    module: str | None = Field(default=None, max_length=64)
    limit: int = Field(default=500, ge=1, le=LIMIT_MOST)


async def prometheus(x: Exchange) -> Whole:
    _, found = await numbers(x.parts)
    return text_response(text(found), content_type=PROMETHEUS)


async def operator_metrics(x: Exchange) -> Metrics:
    query = query_of(MetricQuery, x.request)
    look, known = await numbers(x.parts)
    samples = [sample for family in known for sample in family.samples]
    found = list(_metrics(samples, look.observed_at, query))
    window = x.parts.meter.window(query.window_seconds)
    data = MetricData(
        uptime_seconds=round(x.parts.meter.uptime_s, 3),
        requests_total=x.parts.meter.total,
        requests_per_second=round(window.per_second, 3),
        error_rate=round(window.error_rate, 6),
        p50_latency_ms=window.p50_ms,
        p99_latency_ms=window.p99_ms,
        window_seconds=round(window.seconds, 3),
        timestamp=rfc3339(time.time()),
    )
    return Metrics(ok=True, metrics=found[: query.limit], count=len(found[: query.limit]), data=data)


def _metrics(samples: Iterable[Sample], ts: str, query: MetricQuery) -> Iterable[Metric]:
    for sample in samples:
        module = sample.labels.get("actor", "tentaculo_link")
        if (
            sample.value != sample.value
            or (query.name and sample.name != query.name)
            or (query.module and module != query.module)
        ):
            continue  # NaN: not observed, and JSON has no word for it
        dimensions = dict(sample.labels)
        ident = "|".join((sample.name, *(f"{k}={v}" for k, v in dimensions.items())))
        yield Metric(metric_id=ident, ts=ts, metric_name=sample.name, value=sample.value, module=module, dimensions=dimensions)


async def numbers(parts: Parts) -> tuple[Look, list[Family]]:
    """Everything that is known in numbers, with the look at what was observed: the gateway's own, the actors', the costs."""
    look, last = await asyncio.gather(parts.observed.look(), parts.costs.last())
    return look, [*families(parts, look), *costs.families(last)]


def families(parts: Parts, look: Look) -> list[Family]:
    """The gateway, the bus, the power machine, every actor as last observed."""
    madre, hops = look.core["madre"], parts.hops
    return [
        *parts.meter.families(),
        gauge("vx11_http_in_flight", "Requests under way.", parts.places.taken),
        gauge("vx11_http_streams", "Open event streams.", parts.streams.open.total()),
        *([counter("vx11_http_records_shed_total", "Call records dropped at saturation.", hops.recorder.shed)] if hops else []),
        gauge("vx11_bus_connected", "1 while the gateway has its connection to the bus.", float(parts.bus.connected)),
        _up(look),
        _ages(look),
        gauge("vx11_policy_solo_madre", "1 while the policy is solo_madre.", float(look.policy == "solo_madre"))
        if look.known
        else Family("vx11_policy_solo_madre", "gauge", f"Not observed: madre is {madre.state}.", []),
        Family(
            "vx11_windows_open",
            "gauge",
            "Open windows.",
            [Sample("vx11_windows_open", len(look.windows))] if look.known else [],
        ),
        *_power(look),
    ]


def _up(look: Look) -> Family:
    name = "vx11_actor_up"
    samples = [Sample(name, HEALTH[look.core[one].state], {"actor": one}) for one in CORE]
    samples += [Sample(name, HEALTH[look.health(actor)], {"actor": actor.name}) for actor in look.actors]
    return Family(name, "gauge", "1 up, 0 down or asleep, NaN unknown.", samples)


def _ages(look: Look) -> Family:
    name = "vx11_actor_observed_age_seconds"
    moments = [(one, look.core[one].observed_at) for one in CORE]
    moments += [(actor.name, look.seen_at(actor)) for actor in look.actors]
    samples = [Sample(name, max(0.0, round(time.time() - epoch(at), 3)), {"actor": one}) for one, at in moments if at]
    return Family(name, "gauge", "How old what is said of the actor is.", samples)


def _power(look: Look) -> list[Family]:
    """The power machine, of actors that madre has told of just now."""
    actors = look.actors if look.known else ()
    states = [
        Sample("vx11_actor_state", float(actor.state == state), {"actor": actor.name, "state": state})
        for actor in actors
        for state in get_args(State)
    ]
    return [
        Family("vx11_actor_state", "gauge", "1 for the state that the actor is in.", states),
        Family(
            "vx11_actor_wakes_total",
            "counter",
            "Wakes since the actor's record began.",
            [Sample("vx11_actor_wakes_total", actor.wakes, {"actor": actor.name}) for actor in actors],
        ),
        Family(
            "vx11_actor_last_wake_seconds",
            "gauge",
            "How long the last wake took.",
            [
                Sample("vx11_actor_last_wake_seconds", actor.last_wake_ms / 1e3, {"actor": actor.name})
                for actor in actors
                if actor.last_wake_ms is not None
            ],
        ),
        Family(
            "vx11_actor_in_flight",
            "gauge",
            "Requests that the actor works on.",
            [Sample("vx11_actor_in_flight", actor.in_flight, {"actor": actor.name}) for actor in actors],
        ),
        Family(
            "vx11_actor_held",
            "gauge",
            "Requests that wait for the actor to wake.",
            [Sample("vx11_actor_held", actor.held, {"actor": actor.name}) for actor in actors],
        ),
    ]
