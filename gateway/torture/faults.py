"""Kills and freezes of chosen processes at seeded moments, each one after the system has been itself again."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import random
import signal
import time

from bus.client import Bus
from bus.wire import Msg
from gateway.torture.cycles import Cycles, known
from gateway.torture.history import PROBE, Journal, Struck
from gateway.torture.system import GATEWAY, System, door_open
from gateway.torture.telling import SCRIBE, Telling
from schemas.errors import Failure

ACTOR = "actor"
VICTIMS = (ACTOR, "madre", "host", "nats-server", GATEWAY)
ANY = "any"
MOMENTS = (ANY, "activate", "waking", "active", "draining", "slept")
"""A fault is timed by one of these power events, so that it hits during a wake or a sleep, or by none."""
AFTER_S = 0.015
"""Up to so long after the event: a wake takes 10-20 ms, a sleep less."""
EVENT_S = 2.0
"""For the event to come; else the fault strikes without it, or not at all where `any` is not among the moments."""
FROZEN_S = (0.3, 3.0)
"""A freeze lasts between these, drawn anew each time, unless the plan says how long."""
PAUSE_S = (0.1, 0.8)
RECOVER_S = 10.0
FOUND_S = 0.02


class Faults:
    """`kills` and `freezes` name victims; `run` strikes them in a seeded order until `stop`."""

    def __init__(
        self,
        system: System,
        bus: Bus,
        cycles: Cycles,
        journal: Journal,
        telling: Telling | None = None,
        *,
        actors: tuple[str, ...] = ("echo",),
        kills: tuple[str, ...] = (),
        freezes: tuple[str, ...] = (),
        seed: int = 1,
        frozen_s: tuple[float, float] = FROZEN_S,
        moments: tuple[str, ...] = MOMENTS,
    ) -> None:
        self._system = system
        self._bus = bus
        self._cycles = cycles
        self._journal = journal
        self._telling = telling
        self._actors = actors
        self._strikes = [("kill", v) for v in kills] + [("freeze", v) for v in freezes]
        self._frozen_s = frozen_s
        self._moments = moments
        self._numbers = itertools.count()
        self._random = random.Random(seed)  # noqa: S311 - to be repeatable
        self._runs: dict[str, tuple[str, int]] = {}
        """Of each actor the run that was started last, and its pid while it lives."""
        self._heard = {(actor, moment): asyncio.Event() for actor in actors for moment in MOMENTS}
        self.struck: list[Struck] = []

    async def run(self, stop: asyncio.Event) -> None:
        await self._bus.listen("vx11.events.power.*.*", self._heard_power)
        while self._strikes and not stop.is_set():
            await asyncio.sleep(self._random.uniform(*PAUSE_S))
            what, victim = self._random.choice(self._strikes)
            actor, moment = self._random.choice(self._actors), self._random.choice(self._moments)
            after, frozen = self._random.uniform(0.0, AFTER_S), self._random.uniform(*self._frozen_s)
            if moment != ANY and not await self._event(actor, moment):
                if ANY not in self._moments:
                    continue
                moment = ANY
            await asyncio.sleep(after)
            pid = await self._pid(victim, actor)
            if not stop.is_set() and pid and self._system.owns(pid):
                await self._strike(pid, Struck(what, victim, moment, time.time()), frozen)

    async def _strike(self, pid: int, struck: Struck, frozen: float) -> None:
        number = next(self._numbers)
        self._journal.write(
            "strike", fault=number, what=struck.what, victim=struck.victim, moment=struck.moment, at=struck.at, pid=pid
        )
        try:
            if struck.what == "kill":
                os.kill(pid, signal.SIGKILL)
            else:
                os.kill(pid, signal.SIGSTOP)
                try:
                    await asyncio.sleep(frozen)
                finally:
                    os.kill(pid, signal.SIGCONT)
        except ProcessLookupError:
            if struck.what == "kill":
                self._journal.write("missed", fault=number)
                return  # it ended by itself a moment ago
        self.struck.append(struck)
        await self._recovery(struck)
        self._journal.write(
            "recovered", fault=number, until=struck.until, answered_s=struck.answered_s, recovered_s=struck.recovered_s
        )

    async def _recovery(self, struck: Struck) -> None:
        """Until each actor answers, then until madre does, a whole cycle of each is done and an event is handled."""
        begun = time.monotonic()
        try:
            async with asyncio.timeout(RECOVER_S):
                await asyncio.gather(*(self._answers(actor) for actor in self._actors if actor != SCRIBE))
                struck.answered_s = round(time.monotonic() - begun, 3)
                if struck.victim == GATEWAY:
                    await door_open(self._system)
                await known(self._bus, RECOVER_S)
                await asyncio.gather(self._cycles.next(), *([self._telling.next()] if self._telling else []))
                struck.recovered_s = round(time.monotonic() - begun, 3)
        except (Failure, TimeoutError):
            struck.recovered_s = None
        struck.until = time.time()

    async def _answers(self, actor: str) -> None:
        body = json.dumps({"n": PROBE}).encode()
        await self._bus.ask(f"vx11.{actor}.echo_again", body, timeout=RECOVER_S, idempotent=True)

    async def _event(self, actor: str, moment: str) -> bool:
        heard = self._heard[actor, moment]
        heard.clear()
        try:
            await asyncio.wait_for(heard.wait(), EVENT_S)
        except TimeoutError:
            return False
        return True

    async def _pid(self, victim: str, actor: str) -> int:
        """0 when the victim is not there just now."""
        if victim != ACTOR:
            return self._system.pid(victim)
        if not self._runs.get(actor, ("", 0))[1]:
            await asyncio.sleep(FOUND_S)
        return self._runs.get(actor, ("", 0))[1]

    def _heard_power(self, msg: Msg) -> None:
        _, _, _, fact, actor = msg.subject.split(".")
        told = json.loads(msg.data)
        if fact in ("waking", "active"):
            self._runs[actor] = (told["run"], int(told["pid"]))
        elif fact in ("slept", "exited") and told["run"] == self._runs.get(actor, ("", 0))[0]:
            self._runs[actor] = (told["run"], 0)
        if heard := self._heard.get((actor, fact)):
            heard.set()
