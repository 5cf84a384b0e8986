"""What this machine does: how long an answer takes from an awake actor and from a sleeper, and how many it gives a second."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from bus.client import Bus
from gateway.torture.cycles import known
from gateway.torture.load import ECHO
from gateway.torture.storm import asleep
from gateway.torture.system import scratch
from gateway.torture.verdict import percentiles
from schemas.madre import Restart

ROUNDS = 500
WAKES = 60
QUIET_S = 0.4
"""Before a wake, so that the zygote has a spare parked."""
CROWD = 64
CROWD_S = 3.0
ASK_S = 10.0
BODY = b'{"n": -1}'


@dataclass(frozen=True)
class Figure:
    """One row. `p50_ms`, `p99_ms`: of the time that one caller waits. `per_s`: answers a second over all callers."""

    what: str
    number: int
    p50_ms: float
    p99_ms: float
    per_s: float = 0.0


async def bench(home: Path) -> list[Figure]:
    """Measure on a scratch system in `home`. Raises Failure when it does not start."""
    with scratch(home) as system:
        async with Bus.connect(system.url, user="client", seed=system.seed("client"), name="bench", fast=True) as bus:
            await known(bus)
            await _answer(bus)
            return [
                await _one_by_one(bus),
                await _crowd(bus),
                await _wakes(bus, "woken by a request, a spare parked", _after_a_rest),
                await _wakes(bus, "woken by a request, right after another wake", _after_another),
                await _stored(bus),
            ]


async def _answer(bus: Bus) -> float:
    """Milliseconds until an answer."""
    begun = time.perf_counter()
    await bus.ask(ECHO, BODY, timeout=ASK_S)
    return (time.perf_counter() - begun) * 1000


async def _one_by_one(bus: Bus) -> Figure:
    times = [await _answer(bus) for _ in range(ROUNDS)]
    return Figure("awake, one caller", ROUNDS, *percentiles(times), per_s=round(1000 * ROUNDS / sum(times), 0))


async def _crowd(bus: Bus) -> Figure:
    times: list[float] = []
    end = time.monotonic() + CROWD_S

    async def call() -> None:
        while time.monotonic() < end:
            times.append(await _answer(bus))

    begun = time.monotonic()
    await asyncio.gather(*(call() for _ in range(CROWD)))
    per_s = len(times) / (time.monotonic() - begun)
    return Figure(f"awake, {CROWD} callers at once", len(times), *percentiles(times), per_s=round(per_s, 0))


async def _after_a_rest(bus: Bus) -> None:
    await asleep(bus)
    await asyncio.sleep(QUIET_S)


async def _after_another(bus: Bus) -> None:
    """The spare has just been taken, and the next is not parked yet."""
    await bus.request(Restart(name="echo", reason="bench"), timeout=ASK_S)
    await asleep(bus)


async def _wakes(bus: Bus, what: str, prepare: Callable[[Bus], Awaitable[None]]) -> Figure:
    times = []
    for _ in range(WAKES):
        await prepare(bus)
        times.append(await _answer(bus))
    return Figure(what, WAKES, *percentiles(times))


async def _stored(bus: Bus) -> Figure:
    """Events, each on the disk before the next is published."""
    times = []
    for n in range(ROUNDS):
        begun = time.perf_counter()
        await bus.publish_raw("vx11.events.echo.noted", b'{"n": %d}' % n)
        times.append((time.perf_counter() - begun) * 1000)
    return Figure("an event published and on disk", ROUNDS, *percentiles(times), per_s=round(1000 * ROUNDS / sum(times), 0))
