"""What the keeper answers. It is no actor: nobody wakes it, nobody puts it to sleep, and no card lists it."""

from __future__ import annotations

from collections.abc import AsyncIterator

from actors.keeper.dead import DeadLetters
from actors.keeper.keeper import Keeper
from actors.keeper.replays import Replays
from bus import Actor, Call
from schemas.dead import DeadDropped, DeadLetter, DeadList, DeadRetried, DropDead, GetDead, ListDead, RetryDead
from schemas.keeper import Accept, Find, Found, GetLog, LogState, Verified, Verify
from schemas.replay import (
    ListReplays,
    PauseReplay,
    ReplayList,
    ReplayProgress,
    ReplayStatus,
    ResumeReplay,
    StartReplay,
    StepReplay,
    StopReplay,
)

verbs = Actor("keeper", summary="reads the log in order and vouches for it", dormant=False)


@verbs.handles
async def find(request: Find, keeper: Keeper) -> Found:
    return await keeper.find(request)


@verbs.handles
async def get_log(request: GetLog, keeper: Keeper) -> LogState:  # noqa: ARG001 - a handler is known by its first parameter
    return await keeper.state()


@verbs.handles
async def verify(request: Verify, keeper: Keeper) -> Verified:  # noqa: ARG001 - as above
    return await keeper.verify()


@verbs.handles
async def accept(request: Accept, keeper: Keeper, call: Call) -> LogState:
    return await keeper.accept(request.reason, request.by or call.caller)


@verbs.handles
async def list_dead(request: ListDead, letters: DeadLetters) -> DeadList:
    return await letters.list(request)


@verbs.handles
async def get_dead(request: GetDead, letters: DeadLetters) -> DeadLetter:
    return await letters.get(request)


@verbs.handles
async def retry_dead(request: RetryDead, letters: DeadLetters, call: Call) -> DeadRetried:
    return await letters.retry(request, call.caller)


@verbs.handles
async def drop_dead(request: DropDead, letters: DeadLetters, call: Call) -> DeadDropped:
    return await letters.drop(request, call.caller)


@verbs.handles
async def replay(request: StartReplay, replays: Replays) -> AsyncIterator[ReplayProgress | ReplayStatus]:
    async for status in replays.progress(request):
        yield status


@verbs.handles
async def list_replays(request: ListReplays, replays: Replays) -> ReplayList:
    return replays.list(request.id)


@verbs.handles
async def pause_replay(request: PauseReplay, replays: Replays) -> ReplayStatus:
    return await replays[request.id].order("pause")


@verbs.handles
async def resume_replay(request: ResumeReplay, replays: Replays) -> ReplayStatus:
    return await replays[request.id].order("resume", pace=request.pace)


@verbs.handles
async def step_replay(request: StepReplay, replays: Replays) -> ReplayStatus:
    return await replays[request.id].order("step", count=request.count)


@verbs.handles
async def stop_replay(request: StopReplay, replays: Replays) -> ReplayStatus:
    return await replays.stop(request.id)
