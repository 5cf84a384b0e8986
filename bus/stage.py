"""A stage for an author's tests: a real server of its own with actors awake on it, gone after the block."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from bus.actor import Actor
from bus.client import Bus
from bus.settings import Settings

if TYPE_CHECKING:
    from bus.nats_server import NatsServer
    from bus.wire import Msg

START_S = 10.0
"""For an actor to open its resources and to answer."""
GIVE_UP_S = 1.0
"""The same, when the test has failed already."""
STOP_S = 10.0
"""For what it still has in hand at the end: a handler that never ends is to fail the test, not to hang it."""
RUN = "stage"
"""Name of the one run that each actor has here."""


@asynccontextmanager
async def stage(*actors: Actor, variables: Mapping[str, str] | None = None) -> AsyncIterator[Bus]:
    """Open the resources of `actors`, have them serve, yield a client; leaving drains them as madre would.

    There is no madre: nothing sleeps and nothing is woken. `variables` are what resources read of `Settings`. What an
    actor raises while it starts or stops is raised here; what a handler raises is in the log, and the caller gets
    `internal`, as everywhere. From the main thread only, as every server here.
    """
    from bus.nats_server import embedded

    with TemporaryDirectory(prefix="vx11-stage-") as folder:
        home = Path(folder)
        with embedded(home) as server:
            async with perform(server, *actors, settings=Settings(home, dict(variables or {}))) as bus:
                yield bus


@asynccontextmanager
async def perform(server: NatsServer, *actors: Actor, settings: Settings) -> AsyncIterator[Bus]:
    """The same on a server that is there, and has had no actors yet."""
    async with AsyncExitStack() as stack:
        boss = await stack.enter_async_context(connected(server, "madre"))
        await _make_streams(boss, actors)
        for actor in actors:
            await stack.enter_async_context(_awake(actor, server, boss, settings))
        yield await stack.enter_async_context(connected(server, "client"))


@asynccontextmanager
async def connected(server: NatsServer, user: str, actor: str = "") -> AsyncIterator[Bus]:
    async with Bus.connect(server.url, user=user, seed=server.seed_file(user), name=f"stage-{user}", actor=actor) as bus:
        yield bus


async def _make_streams(boss: Bus, actors: tuple[Actor, ...]) -> None:
    """What madre makes: the streams, then a consumer for each durable handler."""
    from bus import streams

    await streams.ensure_streams(boss.api, streams.stream_configs(boss.wire.max_payload))
    for actor in actors:
        for handler in actor.durables:
            name, subject = actor.durable_name(handler), handler.message.subject
            await streams.ensure_consumer(boss.api, streams.EVENTS, name, [subject])


@asynccontextmanager
async def _awake(actor: Actor, server: NatsServer, boss: Bus, settings: Settings) -> AsyncIterator[None]:
    """One real instance, which claims its record, proves itself and, in the end, is drained."""
    from bus.instance import Instance
    from bus.start import Start

    start = Start(actor.name, id=RUN, run=RUN, revision=0, epoch=0, host=RUN, record={"actor": actor.name})
    async with connected(server, "actor", actor.name) as bus:
        living = asyncio.create_task(Instance(actor, start, bus, settings).live(), name=f"{actor.name} on stage")
        try:
            await _ready(actor.name, boss, living)
            yield
        except BaseException:
            await _ended(actor.name, boss, living, GIVE_UP_S)
            raise
        if not await _ended(actor.name, boss, living, STOP_S):
            raise TimeoutError(f"{actor.name} still has something in hand {STOP_S:g} s after the end of the test")
        living.result()


async def _ready(name: str, boss: Bus, living: asyncio.Task[int]) -> None:
    """Return once it hears requests and events. An order is obeyed only after all is open, so its answer is the proof."""
    proven = asyncio.Event()

    def heard(msg: Msg) -> None:
        if json.loads(msg.data)["stay"]:
            proven.set()
        else:
            _order(boss, name, "_stay")

    active = await boss.listen(f"vx11.events.power.active.{name}", heard)
    await boss.wire.barrier()
    proof = asyncio.create_task(proven.wait())
    try:
        done, _ = await asyncio.wait([living, proof], timeout=START_S, return_when=asyncio.FIRST_COMPLETED)
        if living in done:
            living.result()
        if proof not in done:
            raise TimeoutError(f"{name} was not ready within {START_S:g} s")
    finally:
        proof.cancel()
        await boss.wire.leave(active)


async def _ended(name: str, boss: Bus, living: asyncio.Task[int], patience_s: float) -> bool:
    """Whether it left with empty hands; after `patience_s` it is cut off."""
    if not living.done():
        _order(boss, name, "_drain")
    done, _ = await asyncio.wait([living], timeout=patience_s)
    living.cancel()
    await asyncio.wait([living])
    return bool(done)


def _order(boss: Bus, name: str, verb: str) -> None:
    boss.wire.send(f"vx11.inst.{name}.{RUN}.{verb}", json.dumps({"epoch": 0, "stay": 1}).encode())
