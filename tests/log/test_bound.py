"""The event stream at its bound for a sped-up day: full only while nobody trims, and never for good.

Nothing that was acknowledged goes but what was trimmed by rule, and what is left is vouched for by the chain.
"""

from __future__ import annotations

import asyncio
import dataclasses
import os
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest

from actors.keeper import trim
from bus.client import Bus
from bus.eventlog import EventLog
from bus.nats_server import NatsServer
from bus.settings import Settings
from schemas.errors import Failure
from tests.keeper.archive import QUICK, SOLD, Archive, until_true

LONG = "VX11_LONG_LOG"
HOURS = 24
DAYS = 10 if LONG in os.environ else 1
PER_HOUR = 200
"""Events; so many are most of the bound, so that a day is many times as much as there is room for."""
EVENT_BYTES = 2_000
BOUND = 512 * 1024
AT_A_TIME = 32
WITHOUT_KEEPER = (8, 17)
"""In these hours nobody trims."""
FULL_S_MOST = 15.0
"""The room that a keeper makes is there after so long, also on a busy machine."""
AGED = dataclasses.replace(QUICK, checkpoint_events=50, keep_s=3.0)
"""A month, sped up; the load of a day does not wait for it, and so most goes by size."""


@dataclass
class Day:
    """`journal`: number of each acknowledged event by its sequence."""

    bus: Bus
    journal: dict[int, int] = field(default_factory=dict)
    number: int = 0

    async def publish(self, number: int) -> str:
        try:
            sequence = await self.bus.publish_raw(SOLD, b"%d " % number + b"." * EVENT_BYTES, message_id=f"event-{number}")
        except Failure as failure:
            return failure.code
        self.journal[sequence] = number
        return "ok"

    async def patiently(self, number: int) -> None:
        """Until it is stored, as a client does that is told 507."""
        begun = time.monotonic()
        while (outcome := await self.publish(number)) != "ok":
            assert outcome == "storage_full"
            assert time.monotonic() - begun < FULL_S_MOST, "the stream is full for good"
            await asyncio.sleep(0.02)

    async def hour(self) -> None:
        numbers = iter(range(self.number, self.number + PER_HOUR))
        self.number += PER_HOUR

        async def work() -> None:
            for number in numbers:
                await self.patiently(number)

        await asyncio.gather(*(work() for _ in range(AT_A_TIME)))

    async def until_refused(self) -> float:
        """Publish until it is told that there is no room; how full the stream was then."""
        while (outcome := await self.publish(self.number)) == "ok":
            self.number += 1
        assert outcome == "storage_full"
        return (await trim.room_in(self.bus)).share


@pytest.fixture
async def archive(tmp_path) -> AsyncIterator[Archive]:
    server = NatsServer(Settings(tmp_path), on_orphan=signal.SIGKILL)
    server.start()
    made = Archive(server)
    await made.make_streams(events_bytes=BOUND)
    try:
        yield made
    finally:
        server.stop()


@asynccontextmanager
async def day_of(archive: Archive) -> AsyncIterator[Day]:
    async with archive.connect() as bus:
        yield Day(bus)


async def stored(bus: Bus) -> dict[int, int]:
    """Sequence to number of what is there now."""
    log = EventLog(bus)
    first, last = await log.bounds()
    return {one.sequence: int(one.body.split()[0]) for one in await log.read(first - 1, last, subject=SOLD)}


async def settle(archive: Archive, day: Day) -> None:
    """The chain is whole; what was acknowledged and not trimmed by rule is there."""
    async with archive.checked(AGED) as keeper:
        outcome = await keeper.verify()
        assert outcome.whole, outcome.finding
        trimmed = keeper.watch.ledger.trimmed
        there = await stored(day.bus)
        first = (await trim.room_in(day.bus)).first
        assert {seq for seq in day.journal if seq >= first} <= set(there)
        assert {seq: number for seq, number in there.items() if number != day.journal.get(seq)} == {}
        assert first <= keeper.watch.ledger.trimmed + 1, "more is gone than was trimmed by rule"
        assert trimmed > 0


@pytest.mark.timeout(600)
async def test_a_day_of_load_many_times_its_bound(archive):
    async with day_of(archive) as day:
        for hour in range(HOURS * DAYS):
            if hour % HOURS in WITHOUT_KEEPER:
                assert await day.until_refused() > 0.9, "it was refused though there was room"
            async with archive.keeper(AGED):
                await day.hour()
        assert len(day.journal) > HOURS * DAYS * PER_HOUR - 1
        assert sorted(day.journal.values()) == sorted(set(day.journal.values())), "something was stored twice"
        await settle(archive, day)


async def test_the_server_is_killed_at_the_bound(archive):
    async with day_of(archive) as day:
        assert await day.until_refused() > 0.9
        archive.server.kill()
        archive.server.start()
        await until_true(lambda: refused_again(day))
        async with archive.keeper(AGED):
            await day.hour()
        await settle(archive, day)


async def refused_again(day: Day) -> bool:
    return await day.publish(day.number) == "storage_full"
