"""`vx11 events --follow`: each event once and in order, over the death of the server; what is missing is said."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager

import pytest

from bus import streams
from bus.client import Bus
from bus.eventlog import EventLog, Stored
from bus.following import Away, Gap, following
from bus.nats_server import NatsServer, embedded
from tests.bus.shop import connected, until


@pytest.fixture
def server(tmp_path):
    """One of its own: it is killed."""
    with embedded(tmp_path) as made:
        yield made


@asynccontextmanager
async def shop(server: NatsServer) -> AsyncIterator[Bus]:
    async with connected(server, "madre") as bus:
        await streams.ensure_streams(bus.api, streams.stream_configs(bus.wire.max_payload))
        yield bus


def as_the_command_line(server: NatsServer) -> AbstractAsyncContextManager[Bus]:
    """What cannot be sent fails at once."""
    return Bus.connect(server.url, user="client", seed=server.seed_file("client"), name="test", buffered=False)


async def publish(bus: Bus, *numbers: int, subject: str = "vx11.events.shop.sold") -> None:
    for number in numbers:
        await bus.publish_raw(subject, json.dumps({"n": number}).encode())


@asynccontextmanager
async def follower(bus: Bus, after: int, subject: str = ">") -> AsyncIterator[list[Stored | Gap | Away]]:
    """What it has told so far."""
    told: list[Stored | Gap | Away] = []

    async def follow() -> None:
        async with aclosing(following(EventLog(bus), after, subject=subject)) as going:
            async for one in going:
                told.append(one)  # noqa: PERF401 - as they come

    task = asyncio.create_task(follow())
    try:
        yield told
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def numbers(told: list[Stored | Gap | Away]) -> list[int]:
    return [json.loads(one.body)["n"] for one in told if isinstance(one, Stored)]


async def test_it_goes_on_over_the_death_of_the_server_without_loss_or_repeat(server):
    async with shop(server) as bus, as_the_command_line(server) as looking, follower(looking, 0) as told:
        await publish(bus, *range(50))
        await until(lambda: len(numbers(told)) == 50)
        server.kill()
        await server.start_async()
        await publish(bus, *range(50, 100))
        await until(lambda: len(numbers(told)) >= 100)
        assert numbers(told) == list(range(100))
        assert sum(isinstance(one, Away) for one in told) <= 1
        assert not any(isinstance(one, Gap) for one in told)


async def test_what_was_trimmed_before_it_came_is_a_gap(server):
    async with shop(server) as bus:
        await publish(bus, *range(20))
        await bus.api(f"$JS.API.STREAM.PURGE.{streams.EVENTS}", b'{"seq": 11}')
        async with follower(bus, 3) as told:
            await until(lambda: len(told) == 11)
            assert told[0] == Gap(4, 10, "trimmed")
            assert numbers(told) == list(range(10, 20))


async def test_what_was_removed_in_the_middle_is_a_gap(server):
    async with shop(server) as bus:
        await publish(bus, *range(5))
        await bus.api(f"$JS.API.STREAM.MSG.DELETE.{streams.EVENTS}", b'{"seq": 3}')
        async with follower(bus, 0) as told:
            await until(lambda: len(told) == 5)
            assert told[2] == Gap(3, 3, "trimmed")


async def test_another_log_begins_anew_and_says_so(server):
    """A restored home, or one that was begun again: the numbers say nothing any more."""
    async with shop(server) as bus:
        await publish(bus, 0, 1)
        async with follower(bus, 1_000) as told:
            await until(lambda: len(told) == 3)
            assert told[0] == Gap(3, 1_000, "renewed")
            assert numbers(told) == [0, 1]


async def test_with_a_filter_what_does_not_fit_is_no_gap(server):
    async with shop(server) as bus, follower(bus, 0, "vx11.events.shop.*") as told:
        await publish(bus, 0)
        await publish(bus, 1, subject="vx11.events.other.thing")
        await publish(bus, 2)
        await until(lambda: len(told) == 2)
        assert numbers(told) == [0, 2]


async def test_the_newest_of_a_rare_subject_are_found_however_far_back_they_are(server):
    async with shop(server) as bus:
        log = EventLog(bus)
        await publish(bus, *range(5), subject="vx11.events.rare.bird")
        for begin in range(0, 3_000, 500):
            await asyncio.gather(*(publish(bus, n) for n in range(begin, begin + 500)))
        await publish(bus, 5, subject="vx11.events.rare.bird")
        found = await log.newest(3, subject="vx11.events.rare.bird")
        assert [json.loads(one.body)["n"] for one in found] == [3, 4, 5]
        assert len(await log.newest(100, subject="vx11.events.rare.bird")) == 6
        assert await log.newest(3, subject="vx11.events.no.bird") == []
        assert await log.newest(0) == []
        assert [one.sequence for one in await log.newest(3)] == [3_004, 3_005, 3_006]
