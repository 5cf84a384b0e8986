"""Sleeps and wakes by force, one after the other; the fifth of them gently, as idle-out does it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from bus.client import Bus
from schemas.errors import Failure
from schemas.madre import GetActor, Restart, Sleep

KNOWN_S = 15.0
"""For madre to come and for the host to tell her of its actors."""
LOOK_S = 0.05
MOVE_S = 15.0
SETTLE_S = 0.05
"""After a cycle that a fault has spoilt."""
GENTLE_EVERY = 5
"""Every fifth cycle is a plain sleep, which a request may call back; the others hold what comes and always complete."""


class Cycles:
    """Of the actor `echo`. `done`: how many have been completed; `called_back`: sleeps that a request ended early."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._begun = 0
        self._completed = asyncio.Event()
        self.done = 0
        self.called_back = 0
        self.spoilt = 0

    async def run(self, number: int, seconds: float, stop: Callable[[], bool] = lambda: False) -> None:
        """Until `number` are done, or for `seconds` when they are given."""
        end = time.monotonic() + seconds
        while (time.monotonic() < end if seconds else self.done < number) and not stop():
            await self._once()

    async def _once(self) -> None:
        self._begun += 1
        gentle = not self._begun % GENTLE_EVERY
        try:
            if gentle:
                await self._bus.request(Sleep(name="echo", reason="torture"), timeout=MOVE_S)
            else:
                await self._bus.request(Restart(name="echo", reason="torture"), timeout=MOVE_S)
        except Failure as failure:
            if failure.code == "conflict":
                self.called_back += 1
            else:
                self.spoilt += 1
                await asyncio.sleep(SETTLE_S)
            return
        self.done += 1
        if not gentle:
            self._completed.set()
            self._completed = asyncio.Event()

    async def next(self) -> None:
        """Return when a forced cycle that has not begun yet is done."""
        for _ in range(2):  # the first to come may have begun before
            await self._completed.wait()


async def known(bus: Bus, patience: float = KNOWN_S) -> int:
    """Wait until madre knows the actor; how often it has been woken. Raises Failure after `patience` seconds."""
    end = time.monotonic() + patience
    while True:
        try:
            return (await bus.request(GetActor(name="echo"), timeout=1.0)).status.wakes
        except Failure:
            if time.monotonic() > end:
                raise
            await asyncio.sleep(LOOK_S)
