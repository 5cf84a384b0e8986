"""What is shown of the whole: status, map, capabilities. All of it observed, with its age."""

from __future__ import annotations

import time
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from bus.supervisor import VERSION
from gateway.http.exchange import Exchange
from gateway.http.kept import Kept
from gateway.http.observed import CORE, Health, Look
from gateway.http.parts import Parts
from gateway.moment import rfc3339
from schemas.madre import ActorStatus

Status = Literal["ok", "degraded", "down"]
PORTS = {
    "madre": 8001,
    "switch": 8002,
    "hormiguero": 8004,
    "shubniggurath": 8007,
    "operator_backend": 8011,
    "redis": 6379,
}
"""The original's ports, which are labels now: but for the doors of the gateway all of these are subjects on the bus."""
ROLES = {
    "tentaculo_link": "gateway",
    "madre": "control plane",
    "redis": "cache",
    "switch": "models",
    "operator_backend": "operator",
    "hormiguero": "colony",
    "shubniggurath": "audio",
}
DECLARED = (
    ("operator_backend", "tentaculo_link", "proxy"),
    ("tentaculo_link", "madre", "route"),
    ("madre", "redis", "cache"),
)


class Summary(BaseModel):
    """`healthy_modules`: up, or asleep as they may be."""

    healthy_modules: int
    total_modules: int
    all_healthy: bool


class Storage(BaseModel):
    """The disk. `low`: what would have to be stored is refused, for the `reason`."""

    free_bytes: int
    reserve_bytes: int
    low: bool
    reason: str


class Vx11Status(BaseModel):
    """The public look. `*_available`: a request to it would be served, if need be by waking it."""

    ok: bool
    status: Status
    module: str
    version: str
    timestamp: str
    observed_at: str
    mode: str
    policy: str
    ports: dict[str, int]
    modules: dict[str, Health]
    madre_available: bool
    switch_available: bool
    summary: Summary
    storage: Storage
    log: Kept


class Core(BaseModel):
    state: Health
    observed_at: str
    reason: str
    last_seen: str


class Sleeper(BaseModel):
    status: Health
    power: str
    reason: str
    observed_at: str


class Module(BaseModel):
    status: Health
    port: int | None
    power: str
    observed_at: str


class Dormant(BaseModel):
    name: str
    status: str
    port: int | None
    can_activate: bool
    activation: str
    activation_window: str | None
    reason: str


class OperatorData(BaseModel):
    correlation_id: str
    operational_mode: str
    status: Status
    modules: dict[str, Module]
    dormant_services: list[Dormant]
    timestamp: str


class OperatorStatus(BaseModel):
    ok: bool
    status: Status
    policy: str
    degraded: bool
    core_services: dict[str, bool]
    core_health: dict[str, Core]
    optional_services: dict[str, Sleeper]
    storage: Storage
    log: Kept
    data: OperatorData


class Feature(BaseModel):
    status: Literal["on", "off", "dormant"]
    enabled: bool
    reason: str


class CapabilityData(BaseModel):
    correlation_id: str
    operational_mode: str
    features: dict[str, Feature]
    dormant_services: list[Dormant]
    timestamp: str


class Capabilities(BaseModel):
    ok: bool
    data: CapabilityData


class Node(BaseModel):
    id: str
    label: str
    state: Health
    port: int | None
    role: str
    power: str
    observed_at: str


class Edge(BaseModel):
    """`declared`: the design says so; `observed`: it was seen."""

    model_config = ConfigDict(populate_by_name=True)

    from_: str = Field(alias="from")
    to: str
    label: str
    kind: Literal["declared", "observed"]


class Counts(BaseModel):
    services_up: int
    total_services: int
    dormant_services: int


class Map(BaseModel):
    ok: bool
    nodes: list[Node]
    edges: list[Edge]
    counts: Counts
    timestamp: str
    observed_at: str


async def vx11_status(x: Exchange) -> Vx11Status:
    look = await x.parts.observed.look()
    nodes = _nodes(look, x.parts)
    healthy = sum(_well(look, node.id) for node in nodes)
    return Vx11Status(
        ok=look.status != "down",
        status=look.status,
        module="tentaculo_link",
        version=VERSION,
        timestamp=now(),
        observed_at=look.observed_at,
        mode=look.mode,
        policy=look.policy,
        ports={node.id: node.port for node in nodes if node.port is not None},
        modules={node.id: node.state for node in nodes},
        madre_available=look.core["madre"].state == "up",
        switch_available=_available(look, "switch"),
        summary=Summary(healthy_modules=healthy, total_modules=len(nodes), all_healthy=healthy == len(nodes)),
        storage=_storage(look),
        log=look.log,
    )


async def operator_status(x: Exchange) -> OperatorStatus:
    look = await x.parts.observed.look()
    nodes = _nodes(look, x.parts)
    return OperatorStatus(
        ok=look.status != "down",
        status=look.status,
        policy=look.policy,
        degraded=look.status != "ok",
        core_services={name: look.core[name].state == "up" for name in CORE},
        core_health={name: Core(**look.core[name]._asdict()) for name in CORE},
        optional_services={
            actor.name: Sleeper(
                status=look.health(actor),
                power=_power(look, actor),
                reason=_why(look, actor),
                observed_at=look.seen_at(actor),
            )
            for actor in look.actors
        },
        storage=_storage(look),
        log=look.log,
        data=OperatorData(
            correlation_id=x.correlation_id,
            operational_mode=look.mode,
            status=look.status,
            modules={n.id: Module(status=n.state, port=n.port, power=n.power, observed_at=n.observed_at) for n in nodes},
            dormant_services=_dormant(look),
            timestamp=now(),
        ),
    )


async def capabilities(x: Exchange) -> Capabilities:
    look = await x.parts.observed.look()
    return Capabilities(
        ok=look.status != "down",
        data=CapabilityData(
            correlation_id=x.correlation_id,
            operational_mode=look.mode,
            features=_features(look),
            dormant_services=_dormant(look),
            timestamp=now(),
        ),
    )


async def map_(x: Exchange) -> Map:
    look = await x.parts.observed.look()
    nodes = _nodes(look, x.parts)
    there = {node.id for node in nodes}
    declared = [Edge(from_=a, to=b, label=label, kind="declared") for a, b, label in DECLARED if {a, b} <= there]
    return Map(
        ok=look.status != "down",
        nodes=nodes,
        edges=declared + _observed_edges(look),
        counts=Counts(
            services_up=sum(node.state == "up" for node in nodes),
            total_services=len(nodes),
            dormant_services=sum(node.power == "dormant" for node in nodes),
        ),
        timestamp=now(),
        observed_at=look.observed_at,
    )


def _storage(look: Look) -> Storage:
    return Storage(free_bytes=look.room.free, reserve_bytes=look.room.reserve, low=look.room.low, reason=look.room.told)


def now() -> str:
    return rfc3339(time.time())


def _nodes(look: Look, parts: Parts) -> list[Node]:
    core = [
        Node(
            id=name,
            label=name,
            state=look.core[name].state,
            port=port_of(name, parts),
            role=ROLES[name],
            power="always",
            observed_at=look.core[name].observed_at,
        )
        for name in CORE
    ]
    return core + [
        Node(
            id=actor.name,
            label=actor.name,
            state=look.health(actor),
            port=port_of(actor.name, parts),
            role=ROLES.get(actor.name, actor.summary or "actor"),
            power=_power(look, actor),
            observed_at=look.seen_at(actor),
        )
        for actor in look.actors
    ]


def port_of(name: str, parts: Parts) -> int | None:
    """The doors' own ports as they are bound, labels for the others, None for an actor without one."""
    if name in parts.ports:
        return parts.ports[name]
    return PORTS.get(name)


def _observed_edges(look: Look) -> list[Edge]:
    """What this very look has used."""
    seen = [("tentaculo_link", name, "look") for name in ("madre", "redis") if look.core[name].state == "up"]
    return [Edge(from_=a, to=b, label=label, kind="observed") for a, b, label in seen]


def _power(look: Look, actor: ActorStatus) -> str:
    return actor.state if look.known else "unknown"


def _why(look: Look, actor: ActorStatus) -> str:
    if not look.known:
        return f"madre does not say; last seen {actor.state} at {look.seen_at(actor)}"
    return actor.reason or {"dormant": "sleeps until somebody asks for it", "active": "is awake"}.get(actor.state, actor.state)


def _may_wake(look: Look, actor: ActorStatus) -> bool:
    return look.known and actor.allowed and actor.state != "failed"


def _available(look: Look, name: str) -> bool:
    actor = look.find(name)
    return actor is not None and (look.health(actor) == "up" or _may_wake(look, actor))


def _well(look: Look, name: str) -> bool:
    if name in look.core:
        return look.core[name].state == "up"
    actor = look.find(name)
    return actor is not None and look.known and actor.state not in ("failed", "adopting")


def _dormant(look: Look) -> list[Dormant]:
    return [
        Dormant(
            name=actor.name,
            status="dormant",
            port=PORTS.get(actor.name),
            can_activate=_may_wake(look, actor),
            activation=actor.gate,
            activation_window=next((w.window_id for w in look.windows if actor.name in w.services), None),
            reason=_why(look, actor),
        )
        for actor in look.actors
        if look.known and actor.state == "dormant"
    ]


def _features(look: Look) -> dict[str, Feature]:
    """What a client can use now, and what it would have to wait for."""
    redis = look.core["redis"]
    return {
        "chat": _by_actor(look, "operator_backend", otherwise="madre answers alone"),
        "models": _by_actor(look, "switch", otherwise="switch does not exist here"),
        "power": _on(look.core["madre"].state == "up", look.core["madre"].reason or "madre decides"),
        "windows": _on(look.core["madre"].state == "up", f"{len(look.windows)} open" if look.known else "madre does not answer"),
        "sse_tokens": _on(redis.state == "up", redis.reason or "kept in redis"),
        "intent_chat": _by_actor(look, "operator_backend", otherwise="madre answers alone"),
        "intent_plan": _by_actor(look, "hormiguero", otherwise="the colony is not built yet"),
        "audio": _by_actor(look, "shubniggurath", otherwise="not built yet"),
        "openai_v1": _on(False, "not built yet"),
        "console": _on(False, "not built yet"),
    }


def _by_actor(look: Look, name: str, *, otherwise: str) -> Feature:
    actor = look.find(name)
    if actor is None:
        return _on(False, otherwise)
    if look.health(actor) == "up":
        return _on(True, f"{name} is awake")
    if _may_wake(look, actor):
        return Feature(status="dormant", enabled=True, reason=f"{name} wakes when it is asked")
    return _on(False, _why(look, actor))


def _on(on: bool, reason: str) -> Feature:
    return Feature(status="on" if on else "off", enabled=on, reason=reason)
