"""One torture: a scratch system, the load, the cycles, the faults, a storm at the end, and the verdict."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from bus.client import Bus
from gateway.torture.cycles import Cycles, known
from gateway.torture.faults import FROZEN_S, MOMENTS, Faults
from gateway.torture.history import Struck, read_executions, write_requests
from gateway.torture.load import Load
from gateway.torture.storm import Storm, storm
from gateway.torture.system import GATEWAY, System, door_open, scratch
from gateway.torture.verdict import Verdict, judge

TOLD_S = 0.2
"""Between two tellings of how far it is."""
FOR_EVER_S = float("inf")


@dataclass(frozen=True)
class Plan:
    """`seconds`: run for so long, whatever `cycles` says; 0: until the cycles are done. `pad`: bytes added to each body."""

    cycles: int = 60
    rate: float = 500.0
    seconds: float = 0.0
    kills: tuple[str, ...] = ()
    freezes: tuple[str, ...] = ()
    seed: int = 1
    pad: int = 0
    storm: int = 0
    strikes: int = 0
    """Go on until so many faults have struck, whatever `seconds` and `cycles` say; 0: as long as these say."""
    moments: tuple[str, ...] = MOMENTS
    frozen_s: tuple[float, float] = FROZEN_S

    @property
    def faults(self) -> bool:
        return bool(self.kills or self.freezes)

    @property
    def http(self) -> bool:
        return GATEWAY in (*self.kills, *self.freezes)


@dataclass
class Report:
    """What came of it. `called_back`: sleeps that a request ended before they began; `spoilt`: cycles that a fault ended."""

    plan: Plan
    requests: int = 0
    cycles: int = 0
    called_back: int = 0
    spoilt: int = 0
    wakes: int = 0
    seconds: float = 0.0
    struck: list[Struck] = field(default_factory=list)
    storm: Storm | None = None
    verdict: Verdict = field(default_factory=Verdict)

    @property
    def ok(self) -> bool:
        return self.verdict.ok and (self.storm is None or self.storm.ok)

    def document(self) -> dict[str, Any]:
        return {"ok": self.ok, **asdict(self)}


Told = Callable[[Report], None]


async def torture(home: Path, plan: Plan, told: Told = lambda _: None) -> Report:
    """Run it in `home`, which is made for it. `told` hears now and then how far it is.

    Raises Failure when the scratch system does not start.
    """
    sink = home / "executions"
    services = f"madre,host,{GATEWAY}" if plan.http else "madre,host"
    report = Report(plan)
    with scratch(home, services=services, variables={"VX11_TORTURE_SINK": str(sink)}) as system:
        load = Load(system, plan.rate, plan.pad, faults=plan.faults, http=plan.http)
        await _run(system, plan, report, load, told)
    write_requests(home / "requests", load.asked)
    report.verdict = judge(load.asked, read_executions(sink), report.struck, strays=load.strays)
    return report


async def _run(system: System, plan: Plan, report: Report, load: Load, told: Told) -> None:
    async with Bus.connect(system.url, user="client", seed=system.seed("client"), name="torture-control", fast=True) as bus:
        await known(bus)
        if plan.http:
            await door_open(system)
        if plan.cycles or plan.seconds or plan.strikes:
            await _cycle(system, bus, plan, report, load, told)
        if plan.storm:
            report.storm = await storm(system, bus, plan.storm, told=lambda: told(report))
        report.wakes = await known(bus)


async def _cycle(system: System, bus: Bus, plan: Plan, report: Report, load: Load, told: Told) -> None:
    cycles = Cycles(bus)
    faults = Faults(
        system, bus, cycles,
        kills=plan.kills, freezes=plan.freezes, seed=plan.seed, frozen_s=plan.frozen_s, moments=plan.moments,
    )  # fmt: skip
    report.struck = faults.struck
    begun, stop, stop_cycles = time.monotonic(), asyncio.Event(), asyncio.Event()

    def tell() -> None:
        report.cycles, report.called_back, report.spoilt = cycles.done, cycles.called_back, cycles.spoilt
        report.requests, report.seconds = len(load.asked), round(time.monotonic() - begun, 1)
        told(report)

    telling = asyncio.create_task(_every(TOLD_S, tell))
    loading = asyncio.create_task(load.run(stop))
    striking = asyncio.create_task(faults.run(stop_cycles))
    try:
        if plan.strikes:
            await cycles.run(0, FOR_EVER_S, lambda: len(faults.struck) >= plan.strikes)
        else:
            await cycles.run(plan.cycles, plan.seconds)
        stop_cycles.set()
        await _recover(cycles, striking)
    finally:
        stop.set()
        stop_cycles.set()
        await asyncio.gather(loading, striking)
        telling.cancel()
    tell()


async def _recover(cycles: Cycles, striking: asyncio.Task[None]) -> None:
    """The last fault is recovered from under load, as all others: cycles go on until it is."""
    if not striking.done():
        await cycles.run(0, FOR_EVER_S, striking.done)


async def _every(pause: float, do: Callable[[], None]) -> None:
    while True:
        await asyncio.sleep(pause)
        do()
