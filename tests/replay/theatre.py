"""What the tests of replaying share: filling a log, reading it plainly with the stock client, hearing a sandbox."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import nats
from nats.js.api import ConsumerConfig

from bus import streams
from bus.client import Bus
from bus.nats_server import NatsServer
from bus.replay import Replay
from bus.streams import ensure_stream, stream_configs
from bus.wire import Msg
from schemas.replay import ReplayStatus, StartReplay

WINDOW = 256


@dataclass
class Heard:
    """One message in a sandbox: where it once went, its sequence there, when it came by the monotonic clock."""

    subject: str
    sequence: int
    body: bytes
    headers: Mapping[str, str]
    at: float


@dataclass
class Theatre:
    server: NatsServer
    boss: Bus
    player: Bus
    heard: list[Heard] = field(default_factory=list)

    async def fill(self, events: list[tuple[str, bytes, Mapping[str, str]]]) -> list[int]:
        """Store these; their sequences."""
        return await fill(self.boss, events)

    def replay(self, **wanted: Any) -> Replay:
        return Replay(self.player, StartReplay(**wanted))

    async def play(self, **wanted: Any) -> ReplayStatus:
        return await self.replay(**wanted).run()

    @property
    def sequences(self) -> list[int]:
        return [heard.sequence for heard in self.heard]

    async def settled(self) -> None:
        """What was sent to the sandbox before this is in `heard`."""
        await self.player.wire.barrier()


@asynccontextmanager
async def theatre(server: NatsServer) -> AsyncIterator[Theatre]:
    async with connected(server, "madre") as boss, connected(server, "client") as player:
        await make_events(boss)
        made = Theatre(server, boss, player)
        await player.listen("vx11.sandbox.>", lambda msg: made.heard.append(heard_of(msg)))
        await player.wire.barrier()
        yield made
        for name in (await boss.api("$JS.API.STREAM.NAMES"))["streams"] or ():
            await boss.api(f"$JS.API.STREAM.DELETE.{name}")


def connected(server: NatsServer, user: str) -> Any:
    buffered = user != "client"
    return Bus.connect(server.url, user=user, seed=server.seed_file(user), name=f"test-{user}", fast=True, buffered=buffered)


async def make_events(boss: Bus) -> None:
    wanted = next(c for c in stream_configs(boss.wire.max_payload) if c["name"] == streams.EVENTS)
    await ensure_stream(boss.api, wanted)


def heard_of(msg: Msg) -> Heard:
    headers = msg.headers or {}
    original = msg.subject.split(".", 3)[3]
    return Heard(original, int(headers["vx11-original-sequence"]), msg.data, headers, time.monotonic())


async def fill(boss: Bus, events: list[tuple[str, bytes, Mapping[str, str]]]) -> list[int]:
    """Store these, some at a time; their sequences."""
    found = []
    for at in range(0, len(events), WINDOW):
        storing = [boss.api(subject, body, headers=head) for subject, body, head in events[at : at + WINDOW]]
        found += [int(ack["seq"]) for ack in await asyncio.gather(*storing)]
    return found


async def plain_scan(server: NatsServer) -> list[dict[str, Any]]:
    """The whole log by a stock client and a consumer: independent of everything that a replay uses."""
    client = await nats.connect(
        server.url, nkeys_seed=str(server.seed_file("client")), inbox_prefix=b"_INBOX", allow_reconnect=False
    )
    try:
        stream = client.jetstream()
        left = (await stream.stream_info(streams.EVENTS)).state.messages
        pulled = await stream.pull_subscribe("", stream=streams.EVENTS, config=ConsumerConfig(ack_policy="none"))
        found: list[dict[str, Any]] = []
        while len(found) < left:
            for msg in await pulled.fetch(500, timeout=5):
                meta = msg.metadata
                found.append(
                    {
                        "sequence": meta.sequence.stream,
                        "subject": msg.subject,
                        "at": meta.timestamp.timestamp(),
                        "headers": msg.headers or {},
                        "body": msg.data,
                    }
                )
        await pulled.unsubscribe()
    finally:
        await client.close()
    return found


async def until(condition: Callable[[], object], seconds: float = 20.0) -> None:
    """Wait for the condition, which is also the failure's text."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.005)
