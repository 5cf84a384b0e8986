"""How much may come in: token buckets, places for requests under way, places for connections. Time is passed in."""

from __future__ import annotations

import asyncio
import ipaddress
from collections import Counter, OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager

from schemas.errors import Failure

KEYS_MOST = 4_096
"""Buckets that are kept; the one longest unused makes place."""


class Rates:
    """One token bucket for each key: `rate` a second, `burst` at once."""

    def __init__(self, rate: float, burst: float) -> None:
        self.rate = rate
        self.burst = burst
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def wait(self, key: str, now: float) -> float:
        """Take one; 0.0 when there was one, else the seconds until there is."""
        if self.rate <= 0:
            return 0.0
        level, at = self._buckets.get(key, (self.burst, now))
        level = min(self.burst, level + (now - at) * self.rate)
        self._buckets[key] = (level - 1.0, now) if level >= 1.0 else (level, now)
        self._buckets.move_to_end(key)
        if len(self._buckets) > KEYS_MOST:
            self._buckets.popitem(last=False)
        return 0.0 if level >= 1.0 else (1.0 - level) / self.rate

    def take(self, key: str, now: float) -> None:
        """Raises Failure("busy") with `retry_after` when there is none left."""
        if pause := self.wait(key, now):
            raise Failure("busy", f"more than {self.rate:g} requests a second", retry_after=round(pause, 3))


class Places:
    """Requests under way, `most` at a time."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.cut = False
        """What was under way has been cancelled, because the gateway stops."""
        self._tasks: set[asyncio.Task[object]] = set()
        self._empty = asyncio.Event()
        self._empty.set()

    @property
    def taken(self) -> int:
        return len(self._tasks)

    def enter(self, task: asyncio.Task[object]) -> None:
        """`task` works on the request. Raises Failure("busy") when all places are taken."""
        if len(self._tasks) >= self.most:
            raise Failure("busy", f"{self.most} requests are under way", retry_after=1)
        self._tasks.add(task)
        self._empty.clear()

    def leave(self, task: asyncio.Task[object]) -> None:
        """Does nothing for one that has no place."""
        self._tasks.discard(task)
        if not self._tasks:
            self._empty.set()

    async def emptied(self) -> None:
        """Return once nothing is under way."""
        await self._empty.wait()

    async def cut_off(self) -> None:
        """Cancel what is under way and return once it has told its clients."""
        self.cut = True
        for task in self._tasks:
            task.cancel()
        await self.emptied()


class Streams:
    """Event streams that are open: `most` in all, `each` of one caller."""

    def __init__(self, most: int, each: int) -> None:
        self.most = most
        self.each = each
        self.open: Counter[str] = Counter()

    @contextmanager
    def one(self, caller: str) -> Iterator[None]:
        """Raises Failure("busy") when there are too many."""
        if self.open.total() >= self.most or self.open[caller] >= self.each:
            raise Failure("busy", f"{self.each} event streams of one token, {self.most} in all", retry_after=5)
        self.open[caller] += 1
        try:
            yield
        finally:
            self.open[caller] -= 1
            self.open += Counter()  # drops the callers that have none


class Connections:
    """Open connections: `most` in all, `each` from one address, which loopback and `exempt` addresses may exceed."""

    def __init__(self, most: int, each: int, exempt: frozenset[str] = frozenset()) -> None:
        self.most = most
        self.each = each
        self._exempt = exempt
        self.total = 0
        self.by_address: Counter[str] = Counter()

    def enter(self, address: str) -> bool:
        """False when there is no place; then there is nothing to leave."""
        if self.total >= self.most:
            return False
        if self.by_address[address] >= self.each and not self._is_exempt(address):
            return False
        self.total += 1
        self.by_address[address] += 1
        return True

    def leave(self, address: str) -> None:
        self.total -= 1
        self.by_address[address] -= 1
        if not self.by_address[address]:
            del self.by_address[address]

    def _is_exempt(self, address: str) -> bool:
        return address in self._exempt or not address or ipaddress.ip_address(address.partition("%")[0]).is_loopback
