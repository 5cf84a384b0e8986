"""The stored events, read from a real stream: pages, the end, what comes, and a stream that is away."""

from __future__ import annotations

import asyncio
import json
import time

import pytest

from bus import eventlog, streams
from bus.client import Bus
from bus.eventlog import EventLog
from bus.streams import ensure_stream, stream_configs
from schemas.errors import Failure

SOLD = "vx11.events.shop.sold"


def connect(server, user: str):
    return Bus.connect(server.url, user=user, seed=server.seed_file(user), name=f"test-{user}")


@pytest.fixture
async def madre(nats_server):
    """On a server with an empty VX11_EVENTS."""
    async with connect(nats_server, "madre") as bus:
        wanted = next(c for c in stream_configs(bus.wire.max_payload) if c["name"] == streams.EVENTS)
        await ensure_stream(bus.api, wanted)
        yield bus
        for name in (await bus.api("$JS.API.STREAM.NAMES"))["streams"] or ():
            await bus.api(f"$JS.API.STREAM.DELETE.{name}")


@pytest.fixture
async def log(nats_server, madre):
    """Reads as the gateway does, with the gateway's permissions."""
    async with connect(nats_server, "gateway") as bus:
        yield EventLog(bus)
        assert bus.wire.denied == 0


async def sell(bus: Bus, count: int, **headers: str) -> list[int]:
    return [await bus.publish_raw(SOLD, json.dumps({"n": n}).encode(), headers=headers) for n in range(count)]


async def test_an_event_is_read_whole(madre, log):
    (sequence,) = await sell(madre, 1, correlation_id="conversation-1")
    (stored,) = await log.read(0, 10)
    assert (stored.sequence, stored.subject, stored.body) == (sequence, SOLD, b'{"n": 0}')
    assert stored.headers["correlation_id"] == "conversation-1"
    assert not any(name.startswith("Nats-") for name in stored.headers)
    assert abs(stored.at - time.time()) < 30.0
    assert await log.bounds() == (sequence, sequence)


async def test_pages_follow_each_other_without_a_gap(madre, log, monkeypatch):
    monkeypatch.setattr(eventlog, "PAGE", 7)
    told = await sell(madre, 40)
    first, rest = await log.read(0, 15), await log.read(15, 1_000)
    assert [stored.sequence for stored in first + rest] == told
    assert len(first) == 15


async def test_an_empty_stream_has_nothing_and_says_where_it_would_begin(log):
    first, last = await log.bounds()
    assert first == last + 1
    assert await log.read(0, 10) == []


async def test_removed_events_are_passed_over(madre, log):
    told = await sell(madre, 6)
    for sequence in told[1:3]:
        await madre.api("$JS.API.STREAM.MSG.DELETE.VX11_EVENTS", json.dumps({"seq": sequence}).encode())
    assert [stored.sequence for stored in await log.read(0, 10)] == [told[0], *told[3:]]


async def test_a_follower_gets_what_was_there_and_what_comes(madre, log):
    await sell(madre, 3)
    async with asyncio.timeout(10):
        follower = log.follow(1)
        seen = [(await anext(follower)).sequence for _ in range(2)]
        selling = asyncio.create_task(sell(madre, 50))
        seen += [(await anext(follower)).sequence for _ in range(50)]
        await selling
        await follower.aclose()
    assert seen == list(range(2, 54))


async def test_a_follower_that_has_left_is_not_subscribed_any_more(madre, log):
    before = set(log._bus.wire._subs)
    follower = log.follow(0)
    await sell(madre, 1)
    await anext(follower)
    assert set(log._bus.wire._subs) != before
    await follower.aclose()
    assert set(log._bus.wire._subs) == before


async def test_a_follower_needs_no_notice(madre, log, monkeypatch):
    """A core message may be lost; a stored event is found by looking."""
    monkeypatch.setattr(eventlog, "LOOK_AGAIN_S", 0.05)
    follower = EventLog(log._bus, subjects="vx11.events.nobody.says_this").follow(0)
    async with asyncio.timeout(5):
        coming = asyncio.create_task(anext(follower))
        await sell(madre, 1)
        assert (await coming).sequence == 1
    await follower.aclose()


async def test_a_follower_is_told_when_the_log_begins_anew(madre, log, monkeypatch):
    """Made again, or put back from a copy: what is stored now has numbers that the follower has behind it."""
    monkeypatch.setattr(eventlog, "LOOK_AGAIN_S", 0.05)
    told = await sell(madre, 5)
    config = (await madre.api("$JS.API.STREAM.INFO.VX11_EVENTS"))["config"]
    follower = log.follow(0)
    assert [(await anext(follower)).sequence for _ in told] == told
    await madre.api("$JS.API.STREAM.DELETE.VX11_EVENTS")
    await madre.api("$JS.API.STREAM.CREATE.VX11_EVENTS", json.dumps(config).encode())
    assert await sell(madre, 2) == [1, 2]
    async with asyncio.timeout(5):
        with pytest.raises(Failure, match="anew") as failure:
            await anext(follower)
    assert failure.value.code == "unavailable"


async def test_what_the_stream_did_not_take_makes_no_new_log(madre, log, monkeypatch):
    """Everybody hears it, and it is not stored: the follower goes on."""
    monkeypatch.setattr(eventlog, "LOOK_AGAIN_S", 0.05)
    told = await sell(madre, 2)
    follower = log.follow(0)
    assert [(await anext(follower)).sequence for _ in told] == told
    asked, bounds = asyncio.Event(), log.bounds

    async def counted() -> tuple[int, int]:
        asked.set()
        return await bounds()

    monkeypatch.setattr(log, "bounds", counted)
    async with asyncio.timeout(10):
        coming = asyncio.create_task(anext(follower))
        while not asked.is_set():
            madre.wire.send(SOLD, b"{}", headers={"Nats-Expected-Last-Sequence": "7000"})
            await asyncio.sleep(0.02)
        [sequence] = await sell(madre, 1)
        assert (await coming).sequence == sequence
    await follower.aclose()


async def test_without_its_stream_the_log_says_so(madre, log, monkeypatch):
    monkeypatch.setattr(eventlog, "READ_S", 0.3)
    await madre.api("$JS.API.STREAM.DELETE.VX11_EVENTS")
    for attempt in (log.bounds(), log.read(0, 1), anext(log.follow(0))):
        with pytest.raises(Failure) as failure:
            await attempt
        assert failure.value.code == "unavailable"


async def test_the_last_of_a_subject_is_told_by_its_sequence(madre, log):
    assert await log.last(SOLD) == 0
    sequences = await sell(madre, 2)
    await madre.publish_raw("vx11.events.shop.bought", b"{}")
    assert await log.last(SOLD) == sequences[-1]
