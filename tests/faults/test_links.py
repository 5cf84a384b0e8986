"""The links of random processes to the server stop one by one and heal in another order: nothing is lost (F17)."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from bus.daemon import LOOPBACK, free_port
from bus.nats_server import embedded
from gateway.torture.system import scratch
from tests.faults.links import Links, links
from tests.faults.load import GIVEN_UP, OK, UNHARMED
from tests.faults.scene import ACTORS, LONG, Scene, itself_again, known, seeds

NAMES = ("madre", "host", "ledger")
ROUNDS = 12 if LONG else 3
APART_S = 0.3
"""Between two stops, and between two that heal: no link is stopped for longer than three heartbeats."""
HEALED = UNHARMED | {"plain": frozenset({OK, *GIVEN_UP})}
"""What madre holds for a stock client she gives up in time; what nobody can be reached for is asked again."""

pytestmark = pytest.mark.timeout(180)


@asynccontextmanager
async def linked(home: Path) -> AsyncIterator[tuple[Scene, Links, str]]:
    """A system whose every connection goes through the proxy, and where the server itself is."""
    at = free_port()
    async with AsyncExitStack() as stack:
        server = stack.enter_context(embedded(home))
        proxy = await stack.enter_async_context(links(server.port, at))
        told = {"VX11_ACTORS_PATH": str(ACTORS), "VX11_NATS_URL": f"nats://{LOOPBACK}:{at}"}
        system = scratch(home, variables=told)
        made = Scene(await asyncio.to_thread(system.__enter__), home)
        stack.push_async_callback(asyncio.to_thread, system.__exit__, None, None, None)
        await known(made.system)
        yield made, proxy, server.url


@pytest.mark.parametrize("seed", seeds())
async def test_links_are_stopped_one_by_one_and_healed_in_another_order(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    async with linked(tmp_path / "home") as (made, proxy, url):
        assert set(NAMES) <= proxy.names
        async with made.loaded(seed, allowed=HEALED, url=url) as load:
            for _ in range(ROUNDS):
                stopped = chance.sample(NAMES, chance.randint(1, len(NAMES)))
                for name in stopped:
                    proxy.stop(name)
                    await asyncio.sleep(chance.uniform(0.0, APART_S))
                for name in chance.sample(stopped, len(stopped)):
                    await asyncio.sleep(chance.uniform(0.0, APART_S))
                    proxy.heal(name)
                made.tell(f"after {', '.join(stopped)}: itself again after {await itself_again(load.bus):.2f} s")
        await made.events_done()
