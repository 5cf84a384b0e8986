"""What the tests of durable handlers share: a handler that writes down, waiting, reading dead letters."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from bus import streams
from bus.client import Bus
from bus.durable import Durable, DurableConsumers
from bus.nats_server import NatsServer
from bus.streams import ensure_stream, stream_configs
from bus.wire import Msg

SOLD = "vx11.events.shop.sold"
QUICK = (0.05, 0.1, 0.15, 0.2)
"""A ladder with the real number of tries."""
TRIES = len(QUICK) + 1
SHORT_S = 0.6
"""An ack wait that a test can outlast."""
LONG_S = 30.0
"""An ack wait that no test outlasts: what comes back sooner was handed back."""


class Shop:
    """A handler that writes down what it is given; `act` says what it does with it."""

    def __init__(self, act: Callable[[Msg], Awaitable[object]] | None = None) -> None:
        self.seen: list[bytes] = []
        self.at: list[float] = []
        self._act = act

    async def __call__(self, msg: Msg) -> None:
        self.seen.append(msg.data)
        self.at.append(time.monotonic())
        if self._act:
            await self._act(msg)


async def fail(msg: Msg) -> None:
    raise ConnectionError(f"no way with {msg.data.decode()}")


async def until(condition: Callable[[], object], seconds: float = 10.0) -> None:
    """Wait for the condition, which is also the failure's text."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.005)


async def until_settled(boss: Bus, name: str = "c", seconds: float = 10.0) -> None:
    """Wait until the consumer has given out the last event and nothing is in hand or waits for another try."""

    async def settled() -> bool:
        newest = json.dumps({"last_by_subj": "vx11.events.shop.>"}).encode()  # not what is told of tries
        last = (await boss.api(f"$JS.API.STREAM.MSG.GET.{streams.EVENTS}", newest))["message"]["seq"]
        info = await streams.consumer_info(boss.api, streams.EVENTS, name) or {"num_pending": 1, "num_ack_pending": 0}
        return info["num_pending"] + info["num_ack_pending"] == 0 and info["delivered"]["stream_seq"] >= last

    async with asyncio.timeout(seconds):
        while not await settled():
            await asyncio.sleep(0.02)


async def backlog_is(boss: Bus, num_pending: int, num_ack_pending: int) -> None:
    """Wait for these numbers: the server counts a moment after it has acknowledged."""
    async with asyncio.timeout(5):
        while await streams.backlog(boss.api, streams.EVENTS, "c") != (num_pending, num_ack_pending):
            await asyncio.sleep(0.01)


@asynccontextmanager
async def connected(server: NatsServer, user: str) -> AsyncIterator[Bus]:
    async with Bus.connect(server.url, user=user, seed=server.seed_file(user), name=f"test-{user}") as bus:
        yield bus


async def make_streams(boss: Bus) -> None:
    for config in stream_configs(boss.wire.max_payload):
        if config["name"] in (streams.EVENTS, streams.DLQ):
            await ensure_stream(boss.api, config)


@asynccontextmanager
async def consuming(bus: Bus, run: Shop, name: str = "c", **options) -> AsyncIterator[DurableConsumers]:
    options = {"ladder": QUICK, "ack_wait_s": streams.ACK_WAIT_S} | options
    consumers = DurableConsumers(bus.wire, [Durable(name, streams.EVENTS, [SOLD], run)], **options)
    await consumers.start()
    try:
        yield consumers
    finally:
        await consumers.stop(patience_s=5)


async def letters(boss: Bus) -> list[tuple[str, bytes, dict[str, str]]]:
    """Subject, body and headers of all dead letters."""
    found = []
    for seq in range(1, (await boss.api(f"$JS.API.STREAM.INFO.{streams.DLQ}"))["state"]["last_seq"] + 1):
        one = (await boss.api(f"$JS.API.STREAM.MSG.GET.{streams.DLQ}", json.dumps({"seq": seq}).encode()))["message"]
        lines = base64.b64decode(one["hdrs"]).decode().split("\r\n")[1:]
        found.append((one["subject"], base64.b64decode(one.get("data", "")), dict(line.split(": ", 1) for line in lines if line)))
    return found
