"""Many publishers with a journal, a durable consumer and the keeper, and a bus server that is killed and frozen meanwhile.

A journal line is written before each try and after each outcome, so that the run can be judged from it and from the stream
alone. What is told to have failed is published again with the same id, until it is acknowledged.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path

from bus import commit, streams
from bus.client import Bus
from bus.durable import Durable, DurableConsumers
from bus.eventlog import EventLog, sequence_of
from bus.nats_server import server_name
from bus.streams import ensure_consumer, ensure_stream, stream_configs
from bus.wire import Msg
from gateway.torture.system import System
from schemas.errors import Failure
from schemas.keeper import GetLog, Verified, Verify
from tests.bus.wires import freeze, thaw

SUBJECTS = ("vx11.events.storm.said", "vx11.events.storm.done", "vx11.events.storm.seen")
CONNECTIONS = 3
PUBLISHERS = 32
"""On each connection; each publishes one event after the other."""
CONSUMER = "storm__heard"
WORKERS = 32
AGAIN_S = 0.05
LOST = 3
"""Answers, each to a whole batch, that are lost before the server stands still."""
HEAR = commit._hear
PAGE = 1_000
UP_S = 30.0


@dataclass(frozen=True)
class Size:
    """`window_s`: the stream's duplicate window; the server stands still for `pause_s`, which is longer."""

    events: int
    kills: int
    window_s: float
    pause_s: float


@dataclass
class Story:
    """What is known at the end. `lost`: answers of the server that nobody heard. `resumed_s`: from a server that is up again
    to the next event that was handled."""

    acknowledged: dict[str, int] = field(default_factory=dict)
    unknown: int = 0
    lost: int = 0
    stored: Counter[str] = field(default_factory=Counter)
    at: dict[str, int] = field(default_factory=dict)
    handled: Counter[str] = field(default_factory=Counter)
    resumed_s: list[float] = field(default_factory=list)
    seconds: float = 0.0
    verified: Verified | None = None


class Storm:
    """One run, in a system with madre and the keeper."""

    def __init__(self, system: System, journal: Path, size: Size) -> None:
        self._system, self._size = system, size
        self._journal = journal.open("a", buffering=1)
        self._numbers: Iterator[int] = iter(range(size.events))
        self._news = asyncio.Event()
        self._deaf = False
        self.story = Story()

    async def run(self) -> Story:
        async with AsyncExitStack() as stack:
            boss = await stack.enter_async_context(self._connected("madre"))
            await self._prepare(boss)
            consumers = DurableConsumers(boss.wire, [Durable(CONSUMER, streams.EVENTS, SUBJECTS, self._handle)], workers=WORKERS)
            await consumers.start()
            stack.push_async_callback(consumers.stop, patience_s=5)
            began = time.monotonic()
            buses = [await stack.enter_async_context(self._connected("actor")) for _ in range(CONNECTIONS)]
            async with asyncio.TaskGroup() as group:
                for bus in buses * PUBLISHERS:
                    group.create_task(self._publisher(bus))
                group.create_task(self._spoil())
            self.story.seconds = time.monotonic() - began
            await self._all_handled()
            await self._read(boss)
            self.story.verified = await self._verified(boss)
        self._journal.close()
        return self.story

    def hear(self, msg: Msg, told: asyncio.Future) -> None:
        """In the place of `commit._hear`."""
        if self._deaf:
            self.story.lost += 1
        else:
            HEAR(msg, told)

    def _connected(self, user: str):
        return Bus.connect(self._system.url, user=user, seed=self._system.seed(user), name=f"storm-{user}")

    async def _prepare(self, boss: Bus) -> None:
        configs = {one["name"]: one for one in stream_configs(boss.wire.max_payload)}
        while {*configs} - {*((await boss.api("$JS.API.STREAM.NAMES"))["streams"] or ())}:
            await asyncio.sleep(0.05)  # madre makes them; the last is there when she is done with all
        config = configs[streams.EVENTS]
        await ensure_stream(boss.api, config | {"duplicate_window": int(self._size.window_s * streams.NS)})
        await ensure_consumer(boss.api, streams.EVENTS, CONSUMER, SUBJECTS, start=1)

    def _write(self, op: str, **told: object) -> None:
        self._journal.write(json.dumps({"op": op, "at": time.time(), **told}) + "\n")

    async def _publisher(self, bus: Bus) -> None:
        for number in self._numbers:
            id_, subject = f"storm-{number}", SUBJECTS[number % len(SUBJECTS)]
            while id_ not in self.story.acknowledged:
                self._write("publish", id=id_)
                try:
                    sequence = await bus.publish_raw(subject, json.dumps({"n": number}).encode(), message_id=id_)
                except Failure as failure:
                    self._write("unknown", id=id_, code=failure.code)
                    self.story.unknown += 1
                    await asyncio.sleep(AGAIN_S)
                else:
                    self._write("stored", id=id_, seq=sequence)
                    self.story.acknowledged[id_] = sequence

    async def _handle(self, msg: Msg) -> None:
        self.story.handled[f"storm-{json.loads(msg.data)['n']}"] += 1
        self._news.set()

    async def _spoil(self) -> None:
        """Kill it as often as asked, and in the middle of that let it stand still; at even distances of what is stored."""
        faults = [self._kill] * self._size.kills
        faults.insert(len(faults) // 2, self._pause)
        for number, fault in enumerate(faults, 1):
            while len(self.story.acknowledged) < self._size.events * number // (len(faults) + 1):
                await asyncio.sleep(0.005)
            self._write(fault.__name__)
            await fault()
            up = time.monotonic()
            self._news.clear()
            await self._news.wait()
            self.story.resumed_s.append(time.monotonic() - up)

    async def _kill(self) -> None:
        killed = self._system.pid("nats-server")
        os.kill(killed, signal.SIGKILL)
        async with asyncio.timeout(UP_S):
            while self._system.pid("nats-server") in (0, killed) or not self._answers():
                await asyncio.sleep(0.005)

    def _answers(self) -> bool:
        return bool(server_name(int(self._system.url.rpartition(":")[2])))

    async def _pause(self) -> None:
        """It has written, and stands still before its word is heard: it forgets the ids before they are sent again."""
        self._deaf = True
        while self.story.lost < LOST:
            await asyncio.sleep(0.001)
        pid = self._system.pid("nats-server")
        freeze(pid)
        self._deaf = False
        try:
            await asyncio.sleep(self._size.pause_s)
        finally:
            thaw(pid)

    async def _all_handled(self) -> None:
        while len(self.story.handled) < self._size.events:
            await asyncio.sleep(0.05)

    async def _read(self, boss: Bus) -> None:
        log, after = EventLog(boss), 0
        while page := await log.page(after, PAGE):
            after = sequence_of(page[-1])
            for msg in page:
                id_ = msg.headers.get("Nats-Msg-Id", "")
                if id_.startswith("storm-"):
                    self.story.stored[id_] += 1
                    self.story.at[id_] = sequence_of(msg)

    async def _verified(self, boss: Bus) -> Verified:
        """The keeper's word on the chain, once it has come to the last event."""
        last = max(self.story.at.values())
        while (state := await boss.request(GetLog())).head.sequence < last or state.state == "checking":
            await asyncio.sleep(0.05)
        return await boss.request(Verify())


def journal_of(path: Path) -> tuple[set[str], dict[str, int]]:
    """From the journal alone: the ids that were tried, and the acknowledged ones with their sequences."""
    tried: set[str] = set()
    acknowledged: dict[str, int] = {}
    for line in path.read_text().splitlines():
        entry = json.loads(line)
        if entry["op"] == "publish":
            tried.add(entry["id"])
        elif entry["op"] == "stored":
            assert acknowledged.setdefault(entry["id"], entry["seq"]) == entry["seq"]
    return tried, acknowledged
