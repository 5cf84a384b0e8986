"""The power panel: what madre keeps, in the shapes that old and new clients read."""

from __future__ import annotations

import time
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from gateway.http.body import message_of
from gateway.http.exchange import Exchange
from gateway.http.observed import AWAKE, CORE, Health, Look
from schemas.madre import ActorStatus, Maintained, Moved, RunMaintenance, Window, WindowClosed, WindowOpened
from schemas.power import Gate

EXPECTED = CORE


class PowerService(BaseModel):
    """`state` is the health as observed, `power` the state of the power machine.

    The three that are always awake have `always` there, and null in what the power machine keeps of others.
    """

    name: str
    state: Health
    power: str
    instance: str
    since: str
    idle_s: float | None
    idle_after: float | None
    gate: Gate | None
    gate_pinned: bool | None
    allowed: bool | None
    wakes: int | None
    last_wake_ms: float | None
    in_flight: int | None
    held: int | None
    reason: str
    observed_at: str


class PowerStatus(BaseModel):
    status: Literal["ok", "degraded", "down"]
    services: list[PowerService]
    policy: str
    mode: str
    windows: list[Window]
    observed_at: str


class PolicyStatus(BaseModel):
    """`policy_active`: solo_madre is the policy and nothing but the three is awake; None while that is unknown."""

    status: Literal["ok", "degraded", "down"]
    policy: str
    policy_active: bool | None
    running_services: list[str]
    expected_services: list[str]
    observed_at: str


class Reason(BaseModel):
    """Why; all of it is optional."""

    model_config = ConfigDict(extra="forbid")

    reason: str = ""


class WindowBody(BaseModel):
    """An open or closed window. `services_started` and `services_stopped` are the ones that really did."""

    status: Literal["ok", "partial"]
    state: Literal["open", "closed"]
    window_id: str
    created_at: str
    deadline: str | None
    ttl_remaining_sec: float | None
    services: list[str]
    services_started: list[str] = []
    services_stopped: list[str] = []
    moves: list[Moved]
    window: Window


class Sqlite(BaseModel):
    quick_check: str | None = None
    integrity_check: str | None = None
    foreign_key_check: str | None = None


class PostTask(BaseModel):
    """What the maintenance found and did. Fields that are null, and what `missing` names, do not exist yet."""

    status: Literal["ok", "partial", "failed"]
    apply_retention: bool
    reason: str
    out_dir: str | None = None
    db_path: str | None = None
    db_size_mb: float | None = None
    sqlite: Sqlite | None = None
    backup: dict[str, Any] | None = None
    backup_rotation: dict[str, int] | None = None
    retention: dict[str, int] | None = None
    log: dict[str, Any] | None = None
    checks: dict[str, str]
    counts: dict[str, int]
    missing: list[str] = Field(description="parts that are not built yet")
    elapsed_ms: float


async def status(x: Exchange) -> PowerStatus:
    look = await x.parts.observed.look()
    core = [_core(look, name) for name in CORE]
    return PowerStatus(
        status=look.status,
        services=core + [_service(look, actor) for actor in look.actors],
        policy=look.policy,
        mode=look.mode,
        windows=list(look.windows),
        observed_at=look.observed_at,
    )


async def policy_status(x: Exchange) -> PolicyStatus:
    look = await x.parts.observed.look()
    running = [name for name in CORE if look.core[name].state == "up"]
    running += [actor.name for actor in look.actors if look.health(actor) == "up"]
    alone = set(running) <= set(EXPECTED)
    return PolicyStatus(
        status=look.status,
        policy=look.policy,
        policy_active=look.policy == "solo_madre" and alone if look.known else None,
        running_services=running,
        expected_services=list(EXPECTED),
        observed_at=look.observed_at,
    )


async def post_task(x: Exchange) -> PostTask:
    """Maintenance by madre. Without `apply` it only looks."""
    began = time.monotonic()
    asked = message_of(RunMaintenance, x.body)
    done = Maintained.model_validate(await x.reply(asked))
    made = PostTask(
        status=done.status,
        apply_retention=asked.apply,
        reason=asked.reason,
        checks=done.checks,
        counts=done.counts,
        missing=[],
        elapsed_ms=done.elapsed_ms or round((time.monotonic() - began) * 1e3, 3),
    )
    absent = [name for name in PostTask.model_fields if getattr(made, name) is None]
    return made.model_copy(update={"missing": sorted({*done.missing, *absent})})


def only_looks(body: bytes) -> bool:
    """Whether this post_task changes nothing; an unreadable one counts as one that might."""
    try:
        return not RunMaintenance.model_validate_json(body or b"{}").apply
    except ValueError:
        return False


def opened(said: WindowOpened) -> WindowBody:
    started = [moved.service for moved in said.woken if moved.to in AWAKE and moved.from_ not in AWAKE]
    whole = all(moved.error is None for moved in said.woken)
    return _window(said.window, "open", said.woken, whole, services_started=started)


def closed(said: WindowClosed) -> WindowBody:
    stopped = [moved.service for moved in said.slept if moved.to == "dormant" != moved.from_]
    whole = all(moved.error is None for moved in said.slept)
    return _window(said.window, "closed", said.slept, whole, services_stopped=stopped)


def _window(window: Window, state: Literal["open", "closed"], moves: list[Moved], whole: bool, **more: Any) -> WindowBody:
    return WindowBody(
        status="ok" if whole else "partial",
        state=state,
        window_id=window.window_id,
        created_at=window.created_at,
        deadline=window.deadline,
        ttl_remaining_sec=window.ttl_remaining_sec,
        services=window.services,
        moves=moves,
        window=window,
        **more,
    )


def _core(look: Look, name: str) -> PowerService:
    seen = look.core[name]
    return PowerService(
        name=name,
        state=seen.state,
        power="always",
        instance="",
        since="",
        idle_s=None,
        idle_after=None,
        gate=None,
        gate_pinned=None,
        allowed=None,
        wakes=None,
        last_wake_ms=None,
        in_flight=None,
        held=None,
        reason=seen.reason,
        observed_at=seen.observed_at,
    )


def _service(look: Look, actor: ActorStatus) -> PowerService:
    return PowerService(
        name=actor.name,
        state=look.health(actor),
        power=actor.state if look.known else "unknown",
        instance=actor.instance,
        since=actor.since,
        idle_s=actor.idle_s,
        idle_after=actor.idle_after,
        gate=actor.gate,
        gate_pinned=actor.gate_pinned,
        allowed=actor.allowed,
        wakes=actor.wakes,
        last_wake_ms=actor.last_wake_ms,
        in_flight=actor.in_flight,
        held=actor.held,
        reason=actor.reason,
        observed_at=look.seen_at(actor),
    )
