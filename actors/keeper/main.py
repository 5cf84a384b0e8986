"""The keeper's process: answer at once, keep the log until told to stop."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import secrets
import signal

from actors.keeper.dead import DeadLetters
from actors.keeper.keeper import Keeper
from actors.keeper.replays import Replays
from actors.keeper.rules import Rules
from actors.keeper.verbs import verbs
from bus import chaos
from bus.client import Bus
from bus.resources import Resources
from bus.responder import Responder
from bus.settings import Settings
from schemas.errors import Failure

log = logging.getLogger("vx11.keeper")

CUT_OFF = 1
MISCONFIGURED = 78
BEAT_S = 2.0
NICE = 5
"""Where the processor is short, whoever is being asked goes first."""


def run(settings: Settings, url: str) -> int:
    """The process; returns its exit code."""
    chaos.arm(settings)
    os.nice(NICE)
    try:
        Rules.of(settings)
    except ValueError as error:
        log.error("%s", error)
        return MISCONFIGURED
    return asyncio.run(_main(settings, url))


async def _main(settings: Settings, url: str) -> int:
    stop, closed = asyncio.Event(), asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    seed = settings.seed_file("keeper")
    async with Bus.connect(url, user="keeper", seed=seed if seed.exists() else None, name="keeper", actor="keeper") as bus:
        bus.wire.on_close.append(closed.set)
        keeper = Keeper(bus, settings)
        replays = Replays(settings, url)
        responder = await _serve(bus, keeper, replays)
        beat = asyncio.create_task(_beat(bus, keeper, responder))
        exporting = _export(bus, settings)
        work = asyncio.create_task(keeper.run())
        ends = [asyncio.create_task(event.wait()) for event in (stop, closed)]
        await asyncio.wait([work, *ends], return_when=asyncio.FIRST_COMPLETED)
        for task in (beat, *ends, *exporting):
            task.cancel()
        if closed.is_set():
            log.error("the server has closed the connection for good: %s", bus.wire.last_error)
            return CUT_OFF
        if work.done():
            work.result()  # it ends only by an error, which is for the log of this process
        work.cancel()
        await asyncio.wait([work])
        await replays.close()
        await keeper.close()
        responder.recorder.flush()
        return 0


def _export(bus: Bus, settings: Settings) -> list[asyncio.Task[None]]:
    """To an OpenTelemetry backend, if one is named; else nothing of it is imported.

    What is wrong with its variables is no reason not to keep the log.
    """
    if not any(name.startswith("OTEL_EXPORTER_OTLP_") for name in settings.variables):
        return []
    from actors.keeper.telemetry import export, wanted
    from bus.sampling import Unusable

    try:
        telemetry = wanted(bus, settings)
    except Unusable as error:
        log.error("nothing is exported: %s", error)
        return []
    return [asyncio.create_task(export(telemetry))] if telemetry else []


async def _serve(bus: Bus, keeper: Keeper, replays: Replays) -> Responder:
    """Answer the verbs."""
    resources = Resources(verbs, {Keeper: keeper, DeadLetters: DeadLetters(bus), Replays: replays})
    resources.check()
    responder = Responder(verbs, bus.wire, resources, run=secrets.token_hex(6), describe=_no_card)
    await bus.listen("vx11.keeper.>", responder.receive, queue="keeper")
    await bus.wire.barrier()
    return responder


async def _beat(bus: Bus, keeper: Keeper, responder: Responder) -> None:
    while True:
        responder.tick()
        try:
            bus.wire.send(f"vx11.hb.keeper.{responder.run}", json.dumps({"actor": "keeper", **keeper.health()}).encode())
        except Failure as failure:
            log.info("no heartbeat: %s", failure)
        await asyncio.sleep(BEAT_S)


def _no_card() -> bytes:
    raise Failure("endpoint_not_found", "the keeper is no actor and has no card", verbs=sorted(verbs.requests))
