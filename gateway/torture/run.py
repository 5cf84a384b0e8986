"""One torture: a scratch system, the load, the cycles, the events, the faults, a storm at the end; its history is judged."""

from __future__ import annotations

import asyncio
import os
import time
from collections import Counter
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from bus.client import Bus
from gateway.torture.cycles import Cycles, known
from gateway.torture.faults import FROZEN_S, MOMENTS, Faults
from gateway.torture.history import EVENTS, EXECUTIONS, FAULTS, HANDLED, LOG, REQUESTS, RUN, STORM, Journal, Struck, read_history
from gateway.torture.load import Load
from gateway.torture.recording import Recording
from gateway.torture.storm import Storm, storm, storm_of
from gateway.torture.system import ACTORS, GATEWAY, LISTENERS, System, copies, door_open, scratch
from gateway.torture.telling import SCRIBE, Telling
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
    actors: int = 1
    events: float = 0.0
    """Durable events a second; 0: none, and no actor that waits for them."""

    @property
    def faults(self) -> bool:
        return bool(self.kills or self.freezes)

    @property
    def http(self) -> bool:
        return GATEWAY in (*self.kills, *self.freezes)

    @classmethod
    def from_document(cls, document: dict[str, Any]) -> Plan:
        own = {f.name for f in fields(cls)}
        given: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in document.items() if k in own}
        return cls(**given)


@dataclass
class Progress:
    """How far it is. `doing`: what for, when it is not the load. `outcomes`: of the requests that have ended."""

    plan: Plan
    doing: str = "starting a scratch system"
    seconds: float = 0.0
    cycles: int = 0
    requests: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    acked: int = 0
    handled: int = 0
    struck: list[Struck] = field(default_factory=list)


@dataclass
class Report:
    """What came of it. `called_back`: sleeps that a request ended before they began; `spoilt`: cycles that a fault ended.

    `naps`: sleeps of the scribe. `finished`: False when torture itself was ended, so that some of this was never counted.
    """

    plan: Plan
    requests: int = 0
    cycles: int = 0
    called_back: int = 0
    spoilt: int = 0
    naps: int = 0
    wakes: int = 0
    seconds: float = 0.0
    finished: bool = True
    struck: list[Struck] = field(default_factory=list)
    storm: Storm | None = None
    verdict: Verdict = field(default_factory=Verdict)

    @property
    def ok(self) -> bool:
        return self.verdict.ok and (self.storm is None or self.storm.ok)

    def document(self) -> dict[str, Any]:
        """For JSON, which has no infinity: a fault that torture did not see the end of has none."""
        document = {"ok": self.ok, **asdict(self)}
        for struck in document["struck"]:
            struck["until"] = None if struck["until"] == FOR_EVER_S else struck["until"]
        return document


Tell = Callable[[Progress], None]


async def torture(home: Path, plan: Plan, told: Tell = lambda _: None) -> Report:
    """Run it in `home`, which is made for it. `told` hears now and then how far it is.

    Raises Failure when the scratch system does not start.
    """
    folder = history_of(home)
    with Journal(folder / RUN) as journal:
        journal.write("begin", plan=asdict(plan), at=time.time())
        names = copies(home / "actors", plan.actors)
        paths = [ACTORS, home / "actors", *([LISTENERS] if plan.events else [])]
        variables = {
            "VX11_ACTORS_PATH": os.pathsep.join(map(str, paths)),
            "VX11_TORTURE_SINK": str(folder / EXECUTIONS),
            "VX11_TORTURE_HANDLED": str(folder / HANDLED),
        }
        services = f"madre,host,{GATEWAY}" if plan.http else "madre,host"
        with scratch(home, services=services, variables=variables) as system:
            await Run(system, plan, folder, journal, names, told).run()
    return check(folder)


def history_of(home: Path) -> Path:
    return home / "history"


def check(folder: Path) -> Report:
    """Judge the history in `folder`. Raises Failure when there is none."""
    history = read_history(folder)
    end = history.end or {}
    own = {f.name for f in fields(Report)}
    return Report(
        Plan.from_document(history.begin["plan"]),
        requests=sum(a.n < STORM for a in history.asked),
        finished=history.end is not None,
        struck=history.struck,
        storm=storm_of(history),
        verdict=judge(history),
        **{k: v for k, v in end.items() if k in own},
    )


class Run:
    """Of `plan` against `system`. `names`: the actors that requests are sent to."""

    def __init__(self, system: System, plan: Plan, folder: Path, journal: Journal, names: tuple[str, ...], told: Tell) -> None:
        self._system, self._plan, self._folder, self._journal = system, plan, folder, journal
        self._names, self._told = names, told
        self._progress = Progress(plan, "waiting for its actors")
        self._end: dict[str, Any] = {"strays": 0}

    async def run(self) -> None:
        plan, system = self._plan, self._system
        async with AsyncExitStack() as stack:
            seed = system.seed("client")
            bus = await stack.enter_async_context(
                Bus.connect(system.url, user="client", seed=seed, name="torture-control", fast=True)
            )
            requests = stack.enter_context(Journal(self._folder / REQUESTS))
            recording = Recording(bus, stack.enter_context(Journal(self._folder / LOG)))
            copying = asyncio.create_task(recording.run())
            stack.callback(copying.cancel)
            for name in self._names:
                await known(bus, actor=name)
            if plan.http:
                await door_open(system)
            if plan.cycles or plan.seconds or plan.strikes:
                await self._load(bus, stack, requests)
            if plan.storm:
                self._progress.doing = f"a storm of {plan.storm:,} requests"
                self._told(self._progress)
                await storm(system, bus, plan.storm, requests, self._journal)
            wakes = sum([await known(bus, actor=name) for name in self._names])
            await recording.complete()
            self._journal.write("end", wakes=wakes, at=time.time(), **self._end)

    async def _load(self, bus: Bus, stack: AsyncExitStack, requests: Journal) -> None:
        plan, system = self._plan, self._system
        load = Load(system, requests, plan.rate, plan.pad, faults=plan.faults, http=plan.http, actors=self._names)
        telling = None
        if plan.events:
            events = stack.enter_context(Journal(self._folder / EVENTS))
            telling = Telling(bus, events, self._folder / HANDLED, plan.events)
            await telling.begin()
        cycles = Cycles(bus, self._names)
        faults = Faults(
            system, bus, cycles, stack.enter_context(Journal(self._folder / FAULTS)), telling,
            actors=(*self._names, *([SCRIBE] if telling else [])),
            kills=plan.kills, freezes=plan.freezes, seed=plan.seed, frozen_s=plan.frozen_s, moments=plan.moments,
        )  # fmt: skip
        await self._suffer(load, telling, cycles, faults)
        self._end |= {"strays": load.strays, "cycles": cycles.done, "called_back": cycles.called_back}
        self._end |= {"spoilt": cycles.spoilt, "naps": telling.naps if telling else 0, "seconds": self._progress.seconds}

    async def _suffer(self, load: Load, telling: Telling | None, cycles: Cycles, faults: Faults) -> None:
        plan, progress = self._plan, self._progress
        begun, stop, stop_faults = time.monotonic(), asyncio.Event(), asyncio.Event()
        progress.doing, progress.outcomes, progress.struck = "", load.outcomes, faults.struck

        def tell() -> None:
            progress.seconds, progress.cycles, progress.requests = round(time.monotonic() - begun, 1), cycles.done, load.asked
            if telling:
                progress.acked, progress.handled = len(telling.acked), len(telling.acked & telling.handled)
            self._told(progress)

        repeating = asyncio.create_task(_every(TOLD_S, tell))
        loading = asyncio.create_task(load.run(stop))
        saying = asyncio.create_task(telling.run(stop) if telling else stop.wait())
        striking = asyncio.create_task(faults.run(stop_faults))
        try:
            if plan.strikes:
                await cycles.run(0, FOR_EVER_S, lambda: len(faults.struck) >= plan.strikes or striking.done())
            else:
                await cycles.run(plan.cycles, plan.seconds)
            stop_faults.set()
            if not striking.done():  # the last fault is recovered from under load, as all others: cycles go on until it is
                await cycles.run(0, FOR_EVER_S, striking.done)
        finally:
            stop.set()
            stop_faults.set()
            await asyncio.gather(loading, saying, striking)
            repeating.cancel()
        tell()


async def _every(pause: float, do: Callable[[], None]) -> None:
    while True:
        await asyncio.sleep(pause)
        do()
