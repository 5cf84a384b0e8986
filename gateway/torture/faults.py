"""Kills and freezes of chosen processes at seeded moments, each one after the system has answered again."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from dataclasses import dataclass

from bus.client import Bus
from gateway.torture.system import System
from schemas.errors import Failure
from schemas.madre import GetActor

VICTIMS = ("actor", "madre", "host", "nats-server")
FROZEN_S = (0.3, 3.0)
"""A freeze lasts between these, drawn anew each time."""
PAUSE_S = (0.1, 0.8)
RECOVER_S = 10.0
PROBE_S = 0.02


@dataclass
class Struck:
    """One fault, and how long it took until the next request was answered; None: longer than RECOVER_S."""

    what: str
    victim: str
    recovered_s: float | None


class Faults:
    """`kills` and `freezes` name victims; `run` strikes them in a seeded order until `stop`."""

    def __init__(self, system: System, bus: Bus, *, kills: list[str], freezes: list[str], seed: int) -> None:
        self._system = system
        self._bus = bus
        self._strikes = [("kill", v) for v in kills] + [("freeze", v) for v in freezes]
        self._random = random.Random(seed)  # noqa: S311 - to be repeatable
        self.struck: list[Struck] = []

    async def run(self, stop: asyncio.Event) -> None:
        while self._strikes and not stop.is_set():
            await asyncio.sleep(self._random.uniform(*PAUSE_S))
            what, victim = self._random.choice(self._strikes)
            pid = await self._pid(victim)
            if not pid:
                continue
            if what == "kill":
                _signal(pid, signal.SIGKILL)
            else:
                _signal(pid, signal.SIGSTOP)
                await asyncio.sleep(self._random.uniform(*FROZEN_S))
                _signal(pid, signal.SIGCONT)
            self.struck.append(Struck(what, victim, await self._recovery()))

    async def _pid(self, victim: str) -> int:
        if victim != "actor":
            return self._system.pid(victim)
        try:
            return (await self._bus.request(GetActor(name="echo"), timeout=1.0)).status.pid
        except Failure:
            return 0

    async def _recovery(self) -> float | None:
        """Seconds until a fresh request, asked again and again, is answered ok."""
        begun = time.monotonic()
        while time.monotonic() - begun < RECOVER_S:
            try:
                await self._bus.ask("vx11.echo.describe", b"", timeout=1.0, idempotent=True)
                await self._bus.ask("vx11.echo.echo_again", b'{"n": -1}', timeout=1.0, idempotent=True)
                return round(time.monotonic() - begun, 3)
            except Failure:
                await asyncio.sleep(PROBE_S)
        return None


def _signal(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return  # it ended by itself a moment ago
