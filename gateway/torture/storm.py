"""The storm: a thousand requests at once to one sleeper must wake it once and all be answered."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from dataclasses import dataclass, field

from bus.client import Bus
from gateway.torture.history import OK, SILENCE, STORM, History, Journal
from gateway.torture.load import Load
from gateway.torture.system import System
from gateway.torture.verdict import percentiles
from schemas.errors import Failure
from schemas.madre import GetActor, Sleep

ACTIVATE = "vx11.events.power.activate.echo"
ASLEEP_S = 10.0
LOOK_S = 0.05


@dataclass
class Storm:
    """`activations`: messages on the activate subject that the event log got meanwhile."""

    requests: int
    outcomes: dict[str, int] = field(default_factory=dict)
    activations: int = 0
    second_answers: int = 0
    p50_ms: float = 0.0
    p99_ms: float = 0.0

    @property
    def ok(self) -> bool:
        return self.outcomes == {OK: self.requests} and self.activations == 1 and not self.second_answers


async def storm(system: System, bus: Bus, number: int, requests: Journal, run: Journal) -> None:
    """Put the actor to sleep, then ask `number` times at once, a quarter of them in each way."""
    await asleep(bus)
    before = await activations(bus)
    load = Load(system, requests, first=STORM)
    await load.burst(number)
    run.write("storm", activations=await activations(bus) - before, strays=load.strays)


def storm_of(history: History) -> Storm | None:
    """What came of it; None when there was none, or it was cut off."""
    if history.storm is None:
        return None
    asked = [a for a in history.asked if a.n >= STORM]
    result = Storm(len(asked), dict(Counter(a.outcome or SILENCE for a in asked)), history.storm["activations"])
    result.second_answers = history.storm["strays"] + sum(a.answers - 1 for a in asked if a.answers > 1)
    result.p50_ms, result.p99_ms = percentiles([a.took_ms for a in asked if a.outcome == OK])
    return result


async def asleep(bus: Bus, actor: str = "echo") -> None:
    """Raises Failure when it does not fall asleep in ASLEEP_S seconds."""
    end = time.monotonic() + ASLEEP_S
    while (state := (await bus.request(GetActor(name=actor), timeout=5.0)).status.state) != "dormant":
        if time.monotonic() > end:
            raise Failure("timeout", f"{actor} is {state} and does not fall asleep")
        try:
            await bus.request(Sleep(name=actor, reason="before the storm"), timeout=ASLEEP_S)
        except Failure as failure:
            if failure.code not in ("conflict", "timeout"):
                raise
        await asyncio.sleep(LOOK_S)


async def activations(bus: Bus) -> int:
    """How many activations the event log holds. Raises Failure."""
    request = json.dumps({"subjects_filter": ACTIVATE}).encode()
    info = await bus.api("$JS.API.STREAM.INFO.VX11_EVENTS", request)
    return int((info["state"].get("subjects") or {}).get(ACTIVATE, 0))
