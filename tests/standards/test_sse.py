"""The event stream under blows: whoever comes again with the last id that he has seen misses nothing and sees nothing twice."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import psutil
import pytest

from bus.eventlog import EventLog
from tests.e2e.house import House, until

LONG = os.environ.get("VX11_LONG_LOG") == "1"
EVENTS = 20_000 if LONG else 1_200
ROUNDS = 8 if LONG else 2
FACT = "vx11.events.notebook.seen"
STREAM = "/operator/api/events"
AGAIN_S = 0.02
"""An EventSource would wait for longer."""


pytestmark = pytest.mark.timeout(240 if LONG else 60)


class EventSource:
    """A reader like a browser's: comes again, by itself, with the last id that it was given."""

    def __init__(self, home: House, after: int, query: str = "") -> None:
        self.home = home
        self.last = str(after)
        self.query = query
        self.ids: list[int] = []
        self.gaps: list[dict[str, object]] = []
        self.ends: list[str] = []
        self.opened = 0

    async def run(self) -> None:
        while True:
            with contextlib.suppress(aiohttp.ClientError, ConnectionError, TimeoutError):
                await self._once()
            await asyncio.sleep(AGAIN_S)

    async def _once(self) -> None:
        headers = {"Accept": "text/event-stream", "X-VX11-Token": self.home.token, "Last-Event-ID": self.last}
        clock = aiohttp.ClientTimeout(sock_connect=2.0, sock_read=20.0)
        url = self.home.door + STREAM + self.query
        async with aiohttp.ClientSession(timeout=clock) as http, http.get(url, headers=headers) as answer:
            if answer.status != 200:
                return
            self.opened += 1
            fields: dict[str, str] = {}
            async for raw in answer.content:
                if line := raw.decode().rstrip("\n"):
                    key, _, value = line.partition(": ")
                    fields[key] = value
                    continue
                self._heard(fields)
                fields = {}

    def _heard(self, fields: dict[str, str]) -> None:
        self.last = fields.get("id", self.last)
        if "data" not in fields:
            return
        match fields.get("event", ""):
            case "":
                self.ids.append(int(fields["id"]))
            case "gap":
                self.gaps.append(json.loads(fields["data"]))
            case name:
                self.ends.append(name)


@asynccontextmanager
async def reading(home: House, after: int, query: str = "") -> AsyncIterator[EventSource]:
    source = EventSource(home, after, query)
    task = asyncio.create_task(source.run())
    try:
        yield source
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def publish(home: House, count: int, acknowledged: list[int], *, pause: float = 0.002) -> None:
    """Tried again until the log has said yes; only then is it an event that must be seen."""
    async with home.bus() as bus:
        for number in range(count):
            acknowledged.append(await bus.publish_raw(FACT, json.dumps({"number": number}).encode()))
            await asyncio.sleep(pause)


async def test_a_reader_misses_nothing_and_repeats_nothing_while_gateway_and_server_are_killed(home: House) -> None:
    after = await home.last_event()
    acknowledged: list[int] = []
    async with reading(home, after) as all_of_it, reading(home, after, "?module=notebook") as some:
        publishing = asyncio.create_task(publish(home, EVENTS, acknowledged))
        try:
            for number in range(ROUNDS):
                for part in ("tentaculo_link", "nats-server"):
                    seen, wanted = len(all_of_it.ids), EVENTS * (2 * number + (part == "nats-server")) // (2 * ROUNDS)
                    await until(lambda n=wanted, s=seen: len(acknowledged) > n and len(all_of_it.ids) > s, "it flows", 30)
                    await home.back(part, await home.kill(part))
            await asyncio.wait_for(publishing, 300 if LONG else 40)
        finally:
            publishing.cancel()
        await until(lambda: acknowledged[-1] in all_of_it.ids and acknowledged[-1] in some.ids, "the last one was seen", 30)
    assert all_of_it.opened > ROUNDS, "each death of the gateway breaks it"
    assert (all_of_it.gaps, some.gaps) == ([], [])
    assert all_of_it.ids == list(range(after + 1, all_of_it.ids[-1] + 1)), "in order, each once"
    async with home.bus() as bus:
        log = await EventLog(bus).read(after, 10 * EVENTS)
    stored = {one.sequence for one in log if one.subject.startswith("vx11.events.notebook.")}
    assert some.ids == sorted(some.ids)
    assert set(some.ids) == {number for number in stored if number <= some.ids[-1]}
    assert set(acknowledged) <= set(some.ids)
    assert len(set(acknowledged)) == EVENTS


async def purge(home: House, up_to: int) -> None:
    """As the keeper trims: all below `up_to`."""
    async with home.bus("keeper") as bus:
        body = json.dumps({"seq": up_to}).encode()
        assert (await bus.api("$JS.API.STREAM.PURGE.VX11_EVENTS", body, timeout=5.0))["success"]


async def test_a_reader_who_comes_back_after_a_trimming_is_told_exactly_what_is_gone(home: House) -> None:
    acknowledged: list[int] = []
    await publish(home, 30, acknowledged, pause=0)
    await purge(home, acknowledged[20])
    async with reading(home, acknowledged[9]) as source:
        await until(lambda: acknowledged[-1] in source.ids, "the last one was seen")
    assert source.gaps == [{"from": acknowledged[9] + 1, "to": acknowledged[20] - 1, "reason": "trimmed"}]
    assert source.ids[0] == acknowledged[20]


async def test_a_reader_is_told_when_all_is_gone_and_goes_on_with_what_comes(home: House) -> None:
    acknowledged: list[int] = []
    await publish(home, 5, acknowledged, pause=0)
    await purge(home, acknowledged[-1] + 1)
    async with reading(home, acknowledged[0]) as source:
        await until(lambda: source.gaps, "the gap is told, although nothing happens")
        await publish(home, 1, acknowledged, pause=0)
        await until(lambda: acknowledged[-1] in source.ids, "the new one was seen")
    assert source.gaps[0]["from"] == acknowledged[0] + 1
    assert source.gaps[0]["to"] >= acknowledged[4]
    assert len(source.gaps) == 1


async def test_a_reader_who_takes_nothing_costs_a_bounded_amount_of_memory(home: House) -> None:
    """The rest waits in the log, not in the gateway."""
    door = psutil.Process(home.pid("tentaculo_link"))
    body = json.dumps({"text": "x" * 60_000}).encode()
    after = await home.last_event()
    headers = {"Accept": "text/event-stream", "X-VX11-Token": home.token, "Last-Event-ID": str(after)}
    async with aiohttp.ClientSession(read_bufsize=1024) as http:
        answers = [await http.get(home.door + STREAM, headers=headers) for _ in range(4)]
        before = door.memory_info().rss
        async with home.bus() as bus:
            for _ in range(20 if not LONG else 200):
                await asyncio.gather(*(bus.publish_raw("vx11.events.notebook.large", body) for _ in range(25)))
        grown = door.memory_info().rss - before
        for answer in answers:
            answer.close()
    print(f"{grown / 2**20:.1f} MB")  # noqa: T201
    assert grown < 4 * 4 * 1024 * 1024, f"{grown / 2**20:.1f} MB for 4 readers and 30 MB of events"
    assert (await home.get("/health/ready")).status == 200
