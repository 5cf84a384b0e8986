"""One torture: a scratch system, the load, the cycles, the faults, and the verdict."""

from __future__ import annotations

import asyncio
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from bus.client import Bus
from gateway.torture.faults import Faults, Struck
from gateway.torture.history import Verdict, judge, read_executions
from gateway.torture.load import Load
from gateway.torture.system import System, scratch
from schemas.errors import Failure
from schemas.madre import GetActor, Restart, Sleep

SETTLE_S = 0.2
KNOWN_S = 15.0
GENTLE_EVERY = 5
"""Every fifth cycle is a plain sleep, which a request may call back; the others hold what comes and always complete."""


@dataclass(frozen=True)
class Plan:
    cycles: int = 60
    rate: float = 500.0
    seconds: float = 0.0
    """Stop after this long, 0: after the cycles."""
    kills: tuple[str, ...] = ()
    freezes: tuple[str, ...] = ()
    seed: int = 1
    pad: int = 0


@dataclass
class Report:
    """What came of it. `called_back`: sleeps that a request ended before they began."""

    plan: Plan
    requests: int = 0
    cycles: int = 0
    called_back: int = 0
    wakes: int = 0
    seconds: float = 0.0
    struck: list[Struck] = field(default_factory=list)
    verdict: Verdict = field(default_factory=Verdict)

    @property
    def ok(self) -> bool:
        return not self.verdict.broken and all(s.recovered_s is not None for s in self.struck)

    def document(self) -> dict[str, Any]:
        return {"ok": self.ok, **asdict(self)}


async def torture(home: Path, plan: Plan) -> Report:
    """Run it in `home`, which is made for it. Raises Failure when the scratch system does not start."""
    sink = home / "executions"
    with scratch(home, variables={"VX11_TORTURE_SINK": str(sink)}) as system:
        report, load = await _run(system, plan)
    report.verdict = judge(load.asked, read_executions(sink), strays=load.strays, faults=bool(plan.kills or plan.freezes))
    return report


async def _run(system: System, plan: Plan) -> tuple[Report, Load]:
    report, begun = Report(plan), time.monotonic()
    faulty = bool(plan.kills or plan.freezes)
    load = Load(system.url, system.seed("client"), plan.rate, plan.pad, nobody_again=faulty)
    stop = asyncio.Event()
    async with Bus.connect(system.url, user="client", seed=system.seed("client"), name="torture-control", fast=True) as bus:
        await _known(bus)
        loading = asyncio.create_task(load.run(stop))
        faults = Faults(system, bus, kills=list(plan.kills), freezes=list(plan.freezes), seed=plan.seed)
        striking = asyncio.create_task(faults.run(stop))
        try:
            await _cycle(bus, plan, report, begun)
        finally:
            stop.set()
            await asyncio.gather(loading, striking)
        report.wakes = await _known(bus)
    report.seconds = round(time.monotonic() - begun, 1)
    report.requests, report.struck = len(load.asked), faults.struck
    return report, load


async def _known(bus: Bus) -> int:
    """Wait until madre knows the actor, for at most KNOWN_S; how often it has been woken."""
    end = time.monotonic() + KNOWN_S
    while True:
        try:
            return (await bus.request(GetActor(name="echo"), timeout=1.0)).status.wakes
        except Failure:
            if time.monotonic() > end:
                raise
            await asyncio.sleep(SETTLE_S)


async def _cycle(bus: Bus, plan: Plan, report: Report, begun: float) -> None:
    """Put to sleep and let wake, until the plan is fulfilled."""
    while report.cycles < plan.cycles or time.monotonic() - begun < plan.seconds:
        if plan.seconds and time.monotonic() - begun > plan.seconds:
            return
        try:
            if (report.cycles + report.called_back) % GENTLE_EVERY:
                await bus.request(Restart(name="echo", reason="torture"), timeout=15.0)
            else:
                await bus.request(Sleep(name="echo", reason="torture"), timeout=15.0)
            report.cycles += 1
        except Failure as failure:
            if failure.code == "conflict":
                report.called_back += 1
            else:
                await asyncio.sleep(SETTLE_S)
