"""The keeper as a process of the house: killed at its worst moments and at any other, it goes on where it was."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time

import pytest

from bus import chaos
from bus.client import Bus
from gateway.torture.system import scratch
from schemas.errors import Failure
from schemas.keeper import Find, GetLog, LogState, Verify
from tests.keeper.archive import sell, until_true

SERVICES = "madre,keeper"
LONG = bool(os.environ.get("VX11_LONG_LOG"))
KILLS = 60 if LONG else 6


@pytest.fixture(scope="module")
def system(tmp_path_factory):
    home = tmp_path_factory.mktemp("killed") / "home"
    orders = home.parent / "orders"
    orders.mkdir()
    with scratch(home, services=SERVICES, variables={chaos.FOLDER: str(orders)}) as made:
        made.orders = orders
        yield made


@pytest.fixture
async def bus(system):
    async with Bus.connect(system.url, user="client", seed=system.seed("client"), name="test") as made:
        yield made


async def caught_up(bus: Bus, sequence: int) -> LogState:
    """Ask until the chain and the index have come to `sequence`."""

    async def there() -> bool:
        state = await bus.request(GetLog())
        return state.head.sequence >= sequence and state.indexed_events >= sequence and state.state != "checking"

    await until_true(there, "the keeper did not come back")
    return await bus.request(GetLog())


@pytest.mark.timeout(600 if LONG else 60)
async def test_killed_at_any_moment_it_loses_its_place_never(system, bus):
    """Every event once in the chain and once in the index; a kill between two writes would show as either."""
    dice = random.Random(11)
    sold: list[int] = []
    for n in range(KILLS):
        selling = asyncio.create_task(sell(bus, 150, start=150 * n))
        await asyncio.sleep(dice.uniform(0.0, 0.15))
        if pid := system.pid("keeper"):
            os.kill(pid, signal.SIGKILL)
        sold += await selling
    state = await caught_up(bus, sold[-1])
    assert (state.state, state.findings) == ("whole", [])
    verified = await bus.request(Verify())
    assert (verified.whole, verified.after + verified.checked) == (True, verified.through)
    found = await bus.request(Find(correlation_id="conversation-2", limit=10_000))
    assert found.events == [sequence for n, sequence in enumerate(sold) if n % 4 == 2]


@pytest.mark.parametrize("moment", ["keeper.signed"])
async def test_killed_between_a_checkpoint_and_its_event_it_is_whole(system, bus, moment):
    order = system.orders / moment
    order.write_text("kill")
    sold = await sell(bus, 1_100)
    await until_true(lambda: reached(order), "the moment did not come")
    assert (await caught_up(bus, sold[-1])).state == "whole"
    assert (await bus.request(Verify())).whole


async def test_a_stop_leaves_nothing_out_of_the_chain(tmp_path):
    """What madre and the others say at their end is in it, too."""
    with scratch(tmp_path / "home", services=SERVICES) as system:
        async with Bus.connect(system.url, user="client", seed=system.seed("client"), name="test") as bus:
            sold = await sell(bus, 20)
            await caught_up(bus, sold[-1])
    with scratch(tmp_path / "home", services=SERVICES) as system:
        async with Bus.connect(system.url, user="client", seed=system.seed("client"), name="test") as bus:
            state = await caught_up(bus, sold[-1])
            assert (state.state, state.checkpoint is not None) == ("whole", True)


async def test_it_has_no_card_and_says_so(system, bus):
    with pytest.raises(Failure, match="no actor"):
        await bus.ask("vx11.keeper.describe", b"{}", timeout=5.0)


async def reached(order) -> bool:
    return order.with_name(f"{order.name}{chaos.REACHED}").exists()


async def test_what_strangers_publish_stops_nobody(system, bus):
    """A body that no parser takes must not kill the one who has to read everything, again and again."""
    deep = b"[" * 200_000
    bodies = [b"", b"\xff\xfe", b'{"correlation_id"', b'{"correlation_id": 7}', b'{"correlation_id": "\\ud800"}']
    bodies += [deep, b'{"correlation_id": "x", "deep": ' + deep, b'["correlation_id"]', b"x" * 900_000]
    headers = [{}, {"correlation_id": ""}, {"correlation_id": "ñ" * 300}, {"a:b": "c:d", "empty": ""}]
    sequences = [await bus.publish_raw("vx11.events.shop.sold", body, headers=one) for body in bodies for one in headers]
    before = system.pid("keeper")
    state = await caught_up(bus, sequences[-1])
    assert (state.state, system.pid("keeper")) == ("whole", before)
    assert (await bus.request(Verify())).whole


def test_an_age_that_is_none_is_refused_with_what_to_write(tmp_path):
    with scratch(tmp_path / "home", services=SERVICES, variables={"VX11_EVENTS_DAYS": "a month"}) as system:
        log = system.home / "logs" / "keeper.log"
        end = time.monotonic() + 20
        while not (log.exists() and "VX11_EVENTS_DAYS=30" in log.read_text()):
            assert time.monotonic() < end
            time.sleep(0.02)


async def test_a_call_is_found_by_its_conversation(system, bus):
    """Records come a moment after the answer; a search reads on to the end of the stream before it answers."""
    told = {"correlation_id": "conversation-of-a-call"}
    for _ in range(3):
        await bus.request(GetLog(), headers=told)

    async def there() -> bool:
        return len((await bus.request(Find(correlation_id=told["correlation_id"]))).calls) == 3

    await until_true(there, "the calls are not in the index")
    found = await bus.request(Find(correlation_id=told["correlation_id"], limit=2))
    assert (len(found.calls), found.more) == (2, True)
