"""The stage for authors' tests: a real server, the actor awake on it, a client; and nothing left afterwards."""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import ClassVar

import psutil
import pytest

from bus import Actor, Bus, Settings, stage
from schemas.errors import Failure
from schemas.message import Event, Message, Request
from tests.bus.bakery import Bake, Crumb, Knead, Loaf, Oven, Slice, bakery
from tests.bus.shop import until


class Sold(Event):
    subject: ClassVar = "vx11.events.shop.sold"

    number: int


class Toast(Message):
    n: int


class Breakfast(Request[Toast]):
    subject: ClassVar = "vx11.cook.breakfast"


class House:
    """A baker whose oven the test can see, and which hears of sales in both ways."""

    def __init__(self, broken: str = "", *, hears: bool = True) -> None:
        self.oven = oven = Oven()
        self.heard: list[str] = []
        self.variables: dict[str, str] = {}
        self.closed = False
        self.actor = actor = bakery()

        @actor.resource
        async def make_oven(settings: Settings) -> AsyncIterator[Oven]:
            self.variables = dict(settings.variables)
            if broken == "open":
                raise OSError("no gas")
            yield oven
            self.closed = True
            if broken == "close":
                raise OSError("it is stuck")

        if hears:

            @actor.on
            async def look(event: Sold) -> None:
                self.heard.append(f"look {event.number}")

            @actor.on(durable=True)
            async def count(event: Sold) -> None:
                self.heard.append(f"count {event.number}")


def servers() -> list[str]:
    return [" ".join(child.cmdline()) for child in psutil.Process().children() if "nats-server" in child.name()]


async def test_a_request_is_answered_as_everywhere():
    house = House()
    async with stage(house.actor) as bus:
        assert await bus.request(Bake(n=3)) == Loaf(n=3)
        assert [item async for item in bus.stream(Slice(n=1))] == [Crumb(i=0), Loaf(n=1)]
        with pytest.raises(Failure, match=r"^invalid"):
            await bus.ask("vx11.baker.bake", b"no json", timeout=1)


async def test_events_reach_both_kinds_of_handler_from_the_first_line_on():
    """Also the one that hears only while it is awake: it is awake."""
    house = House()
    async with stage(house.actor) as bus:
        await bus.publish(Sold(number=1))
        await until(lambda: len(house.heard) == 2)
    assert sorted(house.heard) == ["count 1", "look 1"]


async def test_resources_get_the_variables_and_are_closed_at_the_end():
    house = House()
    async with stage(house.actor, variables={"VX11_HEAT": "220"}):
        assert house.variables == {"VX11_HEAT": "220"}
        assert not house.closed
    assert house.closed


def folders() -> set[Path]:
    return set(Path(tempfile.gettempdir()).glob("vx11-stage-*"))


async def test_nothing_is_left():
    before, found = servers(), folders()
    async with stage(House().actor):
        assert len(servers()) == len(before) + 1
    assert servers() == before
    assert folders() <= found


async def test_it_is_there_in_milliseconds():
    """60-90 ms on a quiet machine; a test suite has hundreds of them."""
    async with stage(House().actor):
        begun = time.monotonic()
    async with stage(House().actor) as bus:
        await bus.request(Knead())
    assert time.monotonic() - begun < 3.0


async def test_what_is_in_hand_at_the_end_is_finished():
    """As when madre puts it to sleep."""
    house = House()
    house.oven.act = house.oven.wait
    async with stage(house.actor) as bus:
        asking = asyncio.create_task(bus.request(Bake(n=3)))
        await until(lambda: house.oven.done)
        asyncio.get_running_loop().call_later(0.05, house.oven.gate.set)
    assert house.closed
    asking.cancel()


async def test_a_handler_that_never_ends_fails_the_test_and_does_not_hang_it(monkeypatch):
    monkeypatch.setattr(sys.modules["bus.stage"], "STOP_S", 0.1)
    house, before = House(hears=False), asyncio.all_tasks()
    house.oven.act = house.oven.wait
    with pytest.raises(TimeoutError, match="baker still has something in hand"):
        async with stage(house.actor) as bus:
            asking = asyncio.create_task(bus.request(Bake()))
            await until(lambda: house.oven.done)
    asking.cancel()
    house.oven.gate.set()
    await until(lambda: asyncio.all_tasks() == before)


@pytest.mark.parametrize("broken", ["open", "close"])
async def test_what_a_resource_raises_is_raised_in_the_test(broken):
    with pytest.raises(OSError, match="no gas" if broken == "open" else "it is stuck"):
        async with stage(House(broken).actor) as bus:
            await bus.request(Bake())


async def test_what_the_test_raises_is_not_hidden():
    with pytest.raises(AssertionError, match="2 == 3"):
        async with stage(House().actor) as bus:
            assert (await bus.request(Bake(n=2))).n == 3, "2 == 3"


async def test_a_handler_that_wants_what_nobody_makes_is_told():
    actor = bakery()
    with pytest.raises(TypeError, match="wants oven"):
        async with stage(actor):
            pass


async def test_actors_that_ask_each_other_stand_on_one_stage():
    house, cook = House(), Actor("cook", summary="makes breakfast")

    @cook.handles
    async def breakfast(request: Breakfast, bus: Bus) -> Toast:
        return Toast(n=(await bus.request(Bake(n=7))).n)

    async with stage(house.actor, cook) as bus:
        assert await bus.request(Breakfast()) == Toast(n=7)
    assert house.oven.calls[0].path == "cook"


async def test_the_same_actor_can_go_on_stage_again():
    """Each stage is a world of its own: no record, no event, no answer of the last one."""
    house = House()
    for _ in range(2):
        async with stage(house.actor) as bus:
            await bus.request(Bake(), request_id="always-the-same")
            await bus.publish(Sold(number=1), message_id="always-the-same")
            await until(lambda: len(house.heard) % 2 == 0 and house.heard)
    assert house.oven.done == ["Bake", "Bake"]
    assert len(house.heard) == 4
