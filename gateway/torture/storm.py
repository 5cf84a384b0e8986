"""The storm: a thousand requests at once to one sleeper must wake it once and all be answered."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from bus.client import Bus
from gateway.torture.history import OK, SILENCE
from gateway.torture.load import Load
from gateway.torture.system import System
from gateway.torture.verdict import percentiles
from schemas.errors import Failure
from schemas.madre import GetActor, Sleep

ACTIVATE = "vx11.events.power.activate.echo"
FIRST = 10**9
"""Number of its first request, beyond those of any load."""
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


async def storm(system: System, bus: Bus, number: int, *, told: Callable[[], None] = lambda: None) -> Storm:
    """Put the actor to sleep, then ask `number` times at once, a quarter of them in each way."""
    await asleep(bus)
    before = await activations(bus)
    load = Load(system, first=FIRST)
    told()
    await load.burst(number)
    result = Storm(number, dict(Counter(a.outcome or SILENCE for a in load.asked)))
    result.activations = await activations(bus) - before
    result.second_answers = load.strays + sum(a.answers - 1 for a in load.asked if a.answers > 1)
    result.p50_ms, result.p99_ms = percentiles([a.took_ms for a in load.asked if a.outcome == OK])
    return result


async def asleep(bus: Bus) -> None:
    """Raises Failure when it does not fall asleep in ASLEEP_S seconds."""
    end = time.monotonic() + ASLEEP_S
    while (state := (await bus.request(GetActor(name="echo"), timeout=5.0)).status.state) != "dormant":
        if time.monotonic() > end:
            raise Failure("timeout", f"echo is {state} and does not fall asleep")
        try:
            await bus.request(Sleep(name="echo", reason="before the storm"), timeout=ASLEEP_S)
        except Failure as failure:
            if failure.code not in ("conflict", "timeout"):
                raise
        await asyncio.sleep(LOOK_S)


async def activations(bus: Bus) -> int:
    """How many activations the event log holds. Raises Failure."""
    request = json.dumps({"subjects_filter": ACTIVATE}).encode()
    info = await bus.api("$JS.API.STREAM.INFO.VX11_EVENTS", request)
    return int((info["state"].get("subjects") or {}).get(ACTIVATE, 0))
