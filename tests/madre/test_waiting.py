"""Events that wait for an actor that has died: it is woken for them as soon as its backoff allows, not at the next look."""

from __future__ import annotations

import asyncio

import pytest

from schemas.card import Heard
from tests.bus.shop import until
from tests.madre.playground import Playground, playground

BAKED = "vx11.events.oven.baked"


@pytest.fixture
async def ground(nats_server, tmp_path, monkeypatch: pytest.MonkeyPatch):
    """A baker with a durable handler; nobody looks at what waits by the clock."""
    monkeypatch.setattr("actors.madre.control.EVENTS_LOOK_S", 1_000.0)
    async with playground(nats_server, tmp_path) as ground:
        heard = Heard(subject=BAKED, durable="baker__note")
        await ground.madre.control.register(ground.host.card().model_copy(update={"events": [heard]}), "h")
        yield ground


async def test_who_dies_while_an_event_waits_is_followed_at_once(ground: Playground):
    """It was up to 3 s later."""
    await ground.ask()
    await ground.until("active")
    await ground.caller.publish_raw(BAKED, b"{}")
    ground.host.started[0].task.cancel()
    await until(lambda: len(ground.host.started) == 2)
    await ground.until("active")


async def test_an_event_that_comes_while_a_clean_end_is_written_down_wakes_the_next_one(ground: Playground):
    """It woke nobody until the next look, 3 s later."""
    await ground.ask()
    await ground.until("active")
    baker, store = ground.baker, asyncio.Event()
    swap = ground.madre.machine._kept.swap

    async def slow(*given, **more):
        if baker.power.phase == "burying":
            await store.wait()
        return await swap(*given, **more)

    ground.madre.machine._kept.swap = slow
    ground.madre.machine.sleep(baker, "idle")
    await until(lambda: baker.power.phase == "burying")
    await ground.caller.publish_raw(BAKED, b"{}")
    await until(lambda: baker.waiting)
    store.set()
    await until(lambda: len(ground.host.started) == 2)
    await ground.until("active")


async def test_who_cannot_start_is_tried_again_when_its_backoff_is_over(ground: Playground, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("actors.madre.power.BACKOFF_FIRST_S", 0.2)

    async def broken(_):
        raise OSError("no model")

    monkeypatch.setattr("bus.resources.Resources.open", broken)
    await ground.caller.publish_raw(BAKED, b"{}")
    await ground.until("failed")
    assert len(ground.host.started) == 3
    await until(lambda: len(ground.host.started) > 3)


async def test_who_died_with_nothing_waiting_sleeps(ground: Playground):
    await ground.ask()
    await ground.until("active")
    ground.host.started[0].task.cancel()
    await ground.until("dormant")
    await ground.madre.control._waiting.look()
    assert (ground.state, len(ground.host.started)) == ("dormant", 1)
