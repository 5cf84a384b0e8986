"""madre: who is awake, who may wake, and what an operator may ask of it."""

from __future__ import annotations

import time

from actors.madre.assistant import Assistant
from actors.madre.control import Control
from actors.madre.policy import rfc3339
from actors.madre.upkeep import Upkeep
from bus import Actor, Bus, Call
from bus.cards import card_of
from bus.why import steps_of
from schemas.errors import Failure
from schemas.madre import (
    ActorDetail,
    ActorList,
    ActorStatus,
    ApplyPolicy,
    Chat,
    CloseWindow,
    DropLease,
    Explain,
    Explanation,
    GetActor,
    GetPolicy,
    Lease,
    ListActors,
    ListWindows,
    MadreChatReply,
    Maintained,
    Moved,
    OpenWindow,
    PolicyApplied,
    PolicyState,
    Recognise,
    Recognised,
    Register,
    RenewLease,
    Restart,
    RunMaintenance,
    SetGate,
    Sleep,
    Wake,
    WindowClosed,
    WindowList,
    WindowOpened,
)
from schemas.message import Nothing

actor = Actor("madre", summary="decides who is awake and stands in for who sleeps", dormant=False, concurrency=256)


@actor.handles
async def register(request: Register, control: Control) -> Nothing:
    await control.register(request.card, request.host)
    return Nothing()


@actor.handles
async def list_actors(request: ListActors, control: Control) -> ActorList:
    return control.listed()


@actor.handles
async def get_actor(request: GetActor, control: Control) -> ActorDetail:
    if request.name == actor.name:
        return ActorDetail(status=ActorStatus(name=actor.name, state="active", summary=actor.summary), card=card_of(actor))
    driven = await control.known(request.name)
    if driven.card is None:
        raise Failure("not_found", f"no host has registered {request.name}")
    return ActorDetail(status=control.status(driven), card=driven.card.whole())


@actor.handles
async def wake(request: Wake, control: Control) -> Moved:
    return await control.wake(request.name, request.reason)


@actor.handles
async def sleep(request: Sleep, control: Control) -> Moved:
    return await control.sleep(request.name, request.reason, recall=request.recall)


@actor.handles
async def restart(request: Restart, control: Control) -> Moved:
    return await control.restart(request.name, request.reason)


@actor.handles
async def set_gate(request: SetGate, control: Control) -> ActorStatus:
    return await control.set_gate(request.name, request.gate)


@actor.handles
async def open_window(request: OpenWindow, control: Control) -> WindowOpened:
    if (request.mode == "ttl") != (request.ttl_sec is not None):
        raise Failure("invalid", "mode ttl needs ttl_sec, in seconds; mode hold has none")
    window, woken = await control.open_window(request.services, request.ttl_sec, request.reason)
    return WindowOpened(window=window, woken=woken)


@actor.handles
async def close_window(request: CloseWindow, control: Control) -> WindowClosed:
    window, slept = await control.close_window(request.window_id)
    return WindowClosed(window=window, slept=slept)


@actor.handles
async def list_windows(request: ListWindows, control: Control) -> WindowList:
    return WindowList(windows=control.listed().windows)


@actor.handles
async def get_policy(request: GetPolicy, control: Control) -> PolicyState:
    return control.policy_state()


@actor.handles
async def apply_policy(request: ApplyPolicy, control: Control) -> PolicyApplied:
    executed = await control.apply(request.policy)
    failed = sum(moved.error is not None for moved in executed)
    status = "ok" if not failed else "failed" if failed == len(executed) else "partial"
    return PolicyApplied(status=status, policy=request.policy, executed=executed)


@actor.handles
async def explain(request: Explain, control: Control, bus: Bus) -> Explanation:
    told = (await control.known(request.name)).name
    return control.explain(told).model_copy(update={"steps": await steps_of(bus, told, request.limit)})


@actor.handles
async def renew_lease(request: RenewLease, control: Control) -> Lease:
    lease = await control.renew_lease(request.actor, request.ttl_sec, request.lease_id)
    return Lease(lease_id=lease.lease_id, actor=lease.actor, expires_at=rfc3339(lease.ends))


@actor.handles
async def drop_lease(request: DropLease, control: Control) -> Nothing:
    await control.drop_lease(request.lease_id)
    return Nothing()


@actor.handles
async def run_maintenance(request: RunMaintenance, upkeep: Upkeep) -> Maintained:
    return await upkeep.run(apply=request.apply)


@actor.handles
async def chat(request: Chat, assistant: Assistant, call: Call) -> MadreChatReply:
    scopes = set(call.scopes.replace(",", " ").split())
    may_move = not scopes or "power" in scopes  # whoever has bus credentials, and so no scopes, is an operator
    return await assistant.answer(request.message, request.session_id, time.monotonic(), may_move=may_move, path=_path(call))


@actor.handles
async def recognise(request: Recognise, assistant: Assistant) -> Recognised:
    return await assistant.recognise(request.message, request.session_id, time.monotonic(), asked=request.asked)


def _path(call: Call) -> list[str]:
    return [name for name in call.path.split(",") if name]
