"""A thousand sleepers: each costs a little memory and no clock, and what one costs does not grow with the others."""

from __future__ import annotations

import asyncio
import gc
import time
import tracemalloc

import pytest

from bus import streams
from bus.discovery import Discovery
from bus.nats_server import embedded
from schemas.card import Card, Heard
from tests.bus.shop import until
from tests.madre.playground import Playground, playground

MANY = 100
EACH_BYTES_MOST = 20 * 1024


@pytest.fixture
async def ground(nats_server, tmp_path):
    async with playground(nats_server, tmp_path) as ground:
        yield ground


async def register(ground: Playground, cards: list[Card]) -> None:
    for card in cards:
        await ground.madre.control.register(card, "h")
    await until(lambda: all(ground.madre.machine.driven[card.name].power.opened for card in cards))
    await ground.asks.barrier()


def sleepers(ground: Playground, events: list[Heard] | None = None, *, first: int = 0) -> list[Card]:
    """Cards like the baker's, each with strings and schemas of its own, as they come off the wire."""
    text = ground.host.card().model_copy(update={"events": events or []}).model_dump_json()
    return [Card.model_validate_json(text.replace("baker", f"baker{n}")) for n in range(first, first + MANY)]


def running_clocks() -> int:
    return sum(not timer.cancelled() for timer in asyncio.get_running_loop()._scheduled)  # type: ignore[attr-defined]


async def test_a_sleeper_takes_at_most_20_kib_and_no_clock_of_its_own(ground: Playground):
    """Its schemas alone would take more; the first ones pay for what all share."""
    await register(ground, sleepers(ground))
    clocks, tasks = running_clocks(), len(asyncio.all_tasks())
    gc.collect()
    tracemalloc.start()
    await register(ground, sleepers(ground, first=MANY))
    gc.collect()
    taken, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert taken / MANY < EACH_BYTES_MOST
    assert running_clocks() < clocks + MANY / 10  # of what just happens to be under way
    assert len(asyncio.all_tasks()) < tasks + MANY / 10
    assert not ground.madre.machine._noisy


async def test_what_it_keeps_of_a_card_is_all_of_it(ground: Playground):
    [card, *_] = cards = sleepers(ground)
    await register(ground, cards[:1])
    assert ground.madre.machine.driven["baker0"].card.whole() == card


async def test_a_question_to_one_service_is_put_to_one(ground: Playground, monkeypatch: pytest.MonkeyPatch):
    await register(ground, sleepers(ground))
    asked: list[str] = []
    real = Discovery.answer
    monkeypatch.setattr(Discovery, "answer", lambda one, subject: asked.append(one.id) or real(one, subject))
    got: list[object] = []
    _, reply = ground.asks.await_answer(got.append)
    ground.asks.send("$SRV.INFO.baker7", reply=reply)
    await until(lambda: got)
    assert [name for name in asked if name.endswith("-dormant")] == ["baker7-dormant"]


async def test_a_look_at_the_events_that_wait_asks_one_thing_however_many_could_have_some(
    ground: Playground, monkeypatch: pytest.MonkeyPatch
):
    """It was a question for each, every 3 s: with a thousand handlers a tenth of a core at rest."""
    heard = Heard(subject="vx11.events.baker.baked", durable="baker__note")
    await register(ground, sleepers(ground, [heard])[:20])
    waiting = ground.madre.control._waiting
    for _ in range(3):
        await waiting.look()
    asked: list[str] = []
    api = ground.madre._bus.api

    async def count(subject, *args, **more):
        asked.append(subject)
        return await api(subject, *args, **more)

    monkeypatch.setattr(ground.madre._bus, "api", count)
    await waiting.look()
    assert asked == [f"$JS.API.STREAM.INFO.{streams.EVENTS}"]
    await ground.caller.publish_raw("vx11.events.other.fact", b"{}")
    asked.clear()
    await waiting.look()
    assert len(asked) == 2


async def test_an_event_that_madre_did_not_hear_is_found_among_more_handlers_than_one_page_tells_of(
    ground: Playground, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("actors.madre.waiting.Waiting._heard", lambda *_: None)
    monkeypatch.setattr("actors.madre.control.EVENTS_LOOK_S", 0.1)
    cards = [
        card.model_copy(
            update={"events": [Heard(subject=f"vx11.events.{card.name}.baked", durable=f"{card.name}__n{n}") for n in range(3)]}
        )
        for card in sleepers(ground)
    ]
    await register(ground, cards)
    await ground.caller.publish_raw("vx11.events.baker99.baked", b"{}")
    await until(lambda: ground.madre.machine.driven["baker99"].power.state == "waking")
    assert ground.madre.machine.driven["baker98"].power.state == "dormant"


async def test_she_leaves_them_all_at_once_when_there_is_no_server(tmp_path, monkeypatch: pytest.MonkeyPatch):
    """One after the other took each its whole time: the parent had killed her long before."""
    monkeypatch.setattr("actors.madre.machine.LEAVE_S", 0.3)
    with embedded(tmp_path / "server") as server:
        async with playground(server, tmp_path) as ground:
            await register(ground, sleepers(ground)[:20])
            server.kill()
            await until(lambda: not ground.madre._bus.connected)
            begun = time.monotonic()
            await ground.madre.machine.give_back(successor=False)
            took = time.monotonic() - begun
            server.start()
            await until(lambda: ground.madre._bus.connected)
    assert took < 20 * 0.3 / 2
