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
    """Of all `actors`, each on its own. `done`: how many are completed; `called_back`: sleeps that a request ended early."""

    def __init__(self, bus: Bus, actors: tuple[str, ...] = ("echo",)) -> None:
        self._bus = bus
        self._completed = {actor: asyncio.Event() for actor in actors}
        self.done = 0
        self.called_back = 0
        self.spoilt = 0

    async def run(self, number: int, seconds: float, stop: Callable[[], bool] = lambda: False) -> None:
        """Until `number` are done, or for `seconds` when they are given."""
        end = time.monotonic() + seconds

        async def cycle(actor: str) -> None:
            begun = 0
            while (time.monotonic() < end if seconds else self.done < number) and not stop():
                begun += 1
                await self._once(actor, gentle=not begun % GENTLE_EVERY)

        await asyncio.gather(*map(cycle, self._completed))

    async def _once(self, actor: str, *, gentle: bool) -> None:
        order = Sleep(name=actor, reason="torture") if gentle else Restart(name=actor, reason="torture")
        try:
            await self._bus.request(order, timeout=MOVE_S)
        except Failure as failure:
            if failure.code == "conflict":
                self.called_back += 1
            else:
                self.spoilt += 1
                await asyncio.sleep(SETTLE_S)
            return
        self.done += 1
        if not gentle:
            self._completed[actor].set()
            self._completed[actor] = asyncio.Event()

    async def next(self) -> None:
        """Return when of each actor a forced cycle that has not begun yet is done."""
        await asyncio.gather(*map(self._next, self._completed))

    async def _next(self, actor: str) -> None:
        for _ in range(2):  # the first to come may have begun before
            await self._completed[actor].wait()


async def known(bus: Bus, patience: float = KNOWN_S, *, actor: str = "echo") -> int:
    """Wait until madre knows the actor; how often it has been woken. Raises Failure after `patience` seconds."""
    end = time.monotonic() + patience
    while True:
        try:
            return (await bus.request(GetActor(name=actor), timeout=1.0)).status.wakes
        except Failure:
            if time.monotonic() > end:
                raise
            await asyncio.sleep(LOOK_S)
