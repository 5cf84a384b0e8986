"""Words and orders of power that come twice, late or from another time change nothing (F11)."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections.abc import Awaitable, Callable, Iterator

import pytest

from bus.client import Bus
from bus.wire import Msg
from schemas.errors import Failure
from tests.faults.load import UNHARMED, Load
from tests.faults.scene import LONG, Scene, connected, cycle, order, scene, seeds, status, until

HEARD = (
    "vx11.events.power.>", "vx11.inst.ledger.*._drain", "vx11.inst.ledger.*._stay", "vx11.host.*.ask", "vx11.hb.ledger.*",
)  # fmt: skip
"""All by which madre, host and instance come to an understanding."""
COPY = "x-copy"
PART = 0.3
LATE_S = 2.0
CYCLES = 60 if LONG else 25
OLD_CYCLES = 8
WORK_S = 2.0
"""Longer than it takes from the order to leave to the one to stay."""

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    with scene(tmp_path_factory.mktemp("faults") / "home") as made:
        yield made


@pytest.mark.parametrize("seed", seeds())
async def test_a_third_of_all_words_comes_again_up_to_two_seconds_later(home: Scene, seed: int) -> None:
    """Copies also overtake what was said after them. An instance that leaves by an old order leaves nothing behind."""
    chance = random.Random(seed)
    loop = asyncio.get_running_loop()
    copies = 0

    def again(bus: Bus, msg: Msg) -> None:
        nonlocal copies
        if chance.random() < PART:
            copies += 1
            loop.call_later(chance.uniform(0.0, LATE_S), repeat, bus, msg)

    async with connected(home.system, "madre") as twice:
        await overhear(twice, again)
        async with home.loaded(seed, allowed=UNHARMED) as load:
            for n in range(CYCLES):
                await cycle(load.bus, recall=n % 2 == 0)
            await asyncio.sleep(LATE_S)  # for the last copies
    assert copies > CYCLES


@pytest.mark.parametrize("seed", seeds())
@pytest.mark.parametrize("part", ["madre", "host"])
async def test_all_that_was_said_before_another_came_is_said_again_to_it(home: Scene, part: str, seed: int) -> None:
    """Activations without a place to claim, orders of a lower epoch, words of the dead: nobody wakes, sleeps or is counted."""
    said: list[Msg] = []
    async with connected(home.system, "madre") as twice, home.quiet(seed) as quiet:
        await overhear(twice, lambda _, msg: said.append(msg))
        for n in range(OLD_CYCLES):
            await cycle(quiet.bus, recall=n % 2 == 0)
        await call_back(quiet, said)
        old = home.system.pid(part)
        os.kill(old, signal.SIGKILL)
        await until(lambda: home.system.pid(part) not in (0, old), f"another {part} is there")
        again = said.copy()
        random.Random(seed).shuffle(again)
        async with home.loaded(seed, allowed=UNHARMED) as load:
            await load.bus.ask("vx11.ledger.rewrite", b'{"n": -1}', timeout=20.0, idempotent=True)
            before = await awake(load.bus)
            await repeat_all(twice, again)
            await load.ask("once")
            assert await awake(load.bus) == before
            await while_it_wakes(home, load, lambda: repeat_all(twice, again))
    assert len(again) > OLD_CYCLES


async def call_back(load: Load, said: list[Msg]) -> None:
    """One that lives on has an order to leave in its past."""
    working = load.begin("once", WORK_S)
    await load.ask("once")  # it has taken what came before
    sleeping = asyncio.create_task(order(load.bus, "sleep", reason="test"))
    before = len(said)
    while not any(msg.subject.endswith("._stay") for msg in said[before:]):
        await load.ask("once")  # the first ones may still come before it has left
    with pytest.raises(Failure, match="called ledger back"):
        await sleeping
    assert (await working).outcome == "ok"


async def while_it_wakes(home: Scene, load: Load, do: Callable[[], Awaitable[None]]) -> None:
    """Nobody can be started just now, so that each word of an earlier wake comes into this one."""
    with home.frozen(home.system.pid("host")):
        await order(load.bus, "sleep", recall=False, reason="test")
        asking = load.begin("again")
        while (await status(load.bus))["state"] != "waking":
            await asyncio.sleep(0.01)
        await do()
        assert (await status(load.bus))["state"] == "waking"
    assert (await asking).outcome == "ok"


async def awake(bus: Bus) -> tuple[object, ...]:
    """Who serves, and how often one was woken, once it is settled."""
    while (found := await status(bus))["state"] != "active":
        await asyncio.sleep(0.01)
    return found["pid"], found["wakes"]


async def overhear(bus: Bus, heard: Callable[[Bus, Msg], None]) -> None:
    for subject in HEARD:
        await bus.listen(subject, lambda msg: None if COPY in (msg.headers or {}) else heard(bus, msg))
    await bus.wire.barrier()


async def repeat_all(bus: Bus, said: list[Msg]) -> None:
    for msg in said:
        repeat(bus, msg)
    await bus.wire.barrier()


def repeat(bus: Bus, msg: Msg) -> None:
    if bus.connected:
        bus.wire.send(msg.subject, msg.data, headers={**(msg.headers or {}), COPY: "1"})
