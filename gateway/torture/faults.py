"""Kills and freezes of chosen processes at seeded moments, each one after the system has been itself again."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import time

from bus.client import Bus
from bus.wire import Msg
from gateway.torture.cycles import Cycles, known
from gateway.torture.history import Struck
from gateway.torture.system import GATEWAY, System, door_open
from schemas.errors import Failure

VICTIMS = ("actor", "madre", "host", "nats-server", GATEWAY)
MOMENTS = ("any", "activate", "waking", "active", "draining", "slept")
"""A fault is timed by one of these power events, so that it hits during a wake or a sleep, or by none."""
AFTER_S = 0.015
"""Up to so long after the event: a wake takes 10-20 ms, a sleep less."""
EVENT_S = 2.0
"""For the event to come; else the fault strikes without it."""
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
        *,
        kills: tuple[str, ...] = (),
        freezes: tuple[str, ...] = (),
        seed: int = 1,
        frozen_s: tuple[float, float] = FROZEN_S,
        moments: tuple[str, ...] = MOMENTS,
    ) -> None:
        self._system = system
        self._bus = bus
        self._cycles = cycles
        self._strikes = [("kill", v) for v in kills] + [("freeze", v) for v in freezes]
        self._frozen_s = frozen_s
        self._moments = moments
        self._random = random.Random(seed)  # noqa: S311 - to be repeatable
        self._actor = ("", 0)
        """The run that was started last, and its pid while it lives."""
        self._heard: dict[str, asyncio.Event] = {moment: asyncio.Event() for moment in MOMENTS}
        self.struck: list[Struck] = []

    async def run(self, stop: asyncio.Event) -> None:
        await self._bus.listen("vx11.events.power.*.echo", self._heard_power)
        while self._strikes and not stop.is_set():
            await asyncio.sleep(self._random.uniform(*PAUSE_S))
            what, victim = self._random.choice(self._strikes)
            moment = self._random.choice(self._moments)
            after, frozen = self._random.uniform(0.0, AFTER_S), self._random.uniform(*self._frozen_s)
            if moment != "any" and not await self._event(moment):
                moment = "any"
            await asyncio.sleep(after)
            pid = await self._pid(victim)
            if not stop.is_set() and pid and self._system.owns(pid):
                await self._strike(pid, Struck(what, victim, moment, time.time()), frozen)

    async def _strike(self, pid: int, struck: Struck, frozen: float) -> None:
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
                return  # it ended by itself a moment ago
        await self._recovery(struck)
        self.struck.append(struck)

    async def _recovery(self, struck: Struck) -> None:
        """Until a request is answered, then until madre answers and a whole cycle is done."""
        begun = time.monotonic()
        try:
            async with asyncio.timeout(RECOVER_S):
                await self._bus.ask("vx11.echo.echo_again", b'{"n": -1}', timeout=RECOVER_S, idempotent=True)
                struck.answered_s = round(time.monotonic() - begun, 3)
                if struck.victim == GATEWAY:
                    await door_open(self._system)
                await known(self._bus, RECOVER_S)
                await self._cycles.next()
                struck.recovered_s = round(time.monotonic() - begun, 3)
        except (Failure, TimeoutError):
            struck.recovered_s = None
        struck.until = time.time()

    async def _event(self, moment: str) -> bool:
        self._heard[moment].clear()
        try:
            await asyncio.wait_for(self._heard[moment].wait(), EVENT_S)
        except TimeoutError:
            return False
        return True

    async def _pid(self, victim: str) -> int:
        """0 when the victim is not there just now."""
        if victim != "actor":
            return self._system.pid(victim)
        if not self._actor[1]:
            await asyncio.sleep(FOUND_S)
        return self._actor[1]

    def _heard_power(self, msg: Msg) -> None:
        fact, told = msg.subject.split(".")[3], json.loads(msg.data)
        if fact in ("waking", "active"):
            self._actor = (told["run"], int(told["pid"]))
        elif fact in ("slept", "exited") and told["run"] == self._actor[0]:
            self._actor = (told["run"], 0)
        if fact in self._heard:
            self._heard[fact].set()
