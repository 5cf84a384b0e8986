"""A process dies at each named moment of a wake, a sleep or a request, under load: the promise of each class holds (F3, F4)."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections.abc import Iterator

import pytest

from tests.faults.scene import Scene, cycle, go_on, scene, seeds, until

REQUESTS = ("effect.before", "effect.after")
"""F4: before the effect, and after it before the answer."""
INSTANCE = ("instance.claiming", "instance.claimed", "instance.subscribed", "instance.unsubscribed", "instance.left")
MADRE = (
    "madre.activating", "madre.active", "madre.forwarding", "madre.acknowledged",
    "madre.ordering", "madre.slept", "madre.released",
)  # fmt: skip
HOST = ("host.starting", "zygote.started", "host.started", "host.exited")
NTH_MOST = 3

PAIRS = (
    ("host.starting", "madre"),
    ("instance.claimed", "madre"),
    ("instance.subscribed", "madre"),
    ("instance.unsubscribed", "madre"),
    ("instance.left", "madre"),
    ("host.exited", "madre"),
    ("madre.activating", "host"),
    ("madre.ordering", "host"),
)
"""Who stands still at which moment, while who dies: what it does then comes from before another's time."""

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    with scene(tmp_path_factory.mktemp("faults") / "home") as made:
        yield made


@pytest.mark.parametrize("seed", seeds())
@pytest.mark.parametrize("moment", [*REQUESTS, *INSTANCE, *MADRE, *HOST])
async def test_a_death_at_the_moment(home: Scene, moment: str, seed: int) -> None:
    async with home.loaded(seed) as load:
        home.arm(moment, "kill", random.Random(seed).randint(1, NTH_MOST))
        cycling = asyncio.create_task(cycles(home, load.bus, moment))
        await until(lambda: home.struck(moment), f"somebody is at {moment}")
        await cycling


async def cycles(home: Scene, bus, moment: str) -> None:
    """Sleeps and wakes until somebody was struck; every second sleep may be called back."""
    recall = False
    while not home.struck(moment):
        await cycle(bus, recall=recall)
        recall = not recall


@pytest.mark.parametrize("seed", seeds())
@pytest.mark.parametrize(("moment", "victim"), PAIRS, ids=[" ".join(pair) for pair in PAIRS])
async def test_who_stood_still_meanwhile_does_no_harm_afterwards(home: Scene, moment: str, victim: str, seed: int) -> None:
    """A claim, a word, an order of another time must count for nothing."""
    async with home.loaded(seed) as load:
        home.arm(moment, "stop")
        cycling = asyncio.create_task(cycles(home, load.bus, moment))
        await until(lambda: home.struck(moment), f"somebody is at {moment}")
        try:
            old = home.system.pid(victim)
            os.kill(old, signal.SIGKILL)
            await until(lambda: home.system.pid(victim) not in (0, old), f"another {victim} is there")
            await asyncio.sleep(random.Random(seed).uniform(0.0, 0.5))  # how far the other has come is the test
        finally:
            go_on(home.struck(moment))
        await cycling


@pytest.mark.parametrize("seed", seeds())
async def test_madre_dies_when_she_has_read_of_a_claim_that_she_had_not_heard_of(home: Scene, seed: int) -> None:
    async with home.loaded(seed) as load:
        home.arm("madre.claim_read", "kill")
        home.arm("instance.subscribed", "stop")
        cycling = asyncio.create_task(cycles(home, load.bus, "madre.claim_read"))
        try:
            await until(lambda: home.struck("madre.claim_read"), "madre has read of it")
        finally:
            go_on(home.struck("instance.subscribed"))
        await cycling
