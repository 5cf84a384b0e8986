"""A log with its keeper, in one process, on a server of its own that can be stopped, damaged and started again."""

from __future__ import annotations

import asyncio
import shutil
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from actors.keeper.keeper import Keeper
from actors.keeper.rules import Rules
from bus.client import Bus
from bus.nats_server import NatsServer
from bus.settings import Settings
from bus.streams import ensure_streams, stream_configs
from schemas.errors import Failure

SOLD = "vx11.events.shop.sold"
WAIT_S = 20.0
QUICK = Rules(gather_s=0.005, checkpoint_events=10, upkeep_s=0.05)
"""Checkpoints after 10 events."""


@dataclass
class Archive:
    """`server` is running unless it was stopped; `home` has its data and keeper.db."""

    server: NatsServer

    @property
    def home(self) -> Path:
        return self.server.home

    @property
    def store(self) -> Path:
        (found,) = self.home.rglob("VX11_EVENTS")
        return found

    @property
    def block(self) -> Path:
        """The file with the events; small streams have one."""
        (found,) = (self.store / "msgs").glob("*.blk")
        return found

    def connect(self, user: str = "madre"):
        return Bus.connect(self.server.url, user=user, seed=self.server.seed_file(user), name=f"test-{user}")

    async def make_streams(self, **sizes: int) -> None:
        async with self.connect() as bus:
            await ensure_streams(bus.api, stream_configs(bus.wire.max_payload, **sizes))

    @asynccontextmanager
    async def keeper(self, rules: Rules = QUICK) -> AsyncIterator[Keeper]:
        """A keeper that is ended as SIGTERM ends it. It may still be opening."""
        async with self.connect("keeper") as bus:
            keeper = Keeper(bus, Settings(self.home), rules)
            work = asyncio.create_task(keeper.run())
            try:
                yield keeper
            finally:
                work.cancel()
                await asyncio.wait([work])
                await keeper.close()
                assert bus.wire.denied == 0

    @asynccontextmanager
    async def checked(self, rules: Rules = QUICK) -> AsyncIterator[Keeper]:
        """A keeper that has read to the end and compared everything once."""
        async with self.keeper(rules) as keeper:
            await settled(keeper)
            yield keeper

    def damage(self, how: Callable[[bytes], bytes], *, killed: bool = True) -> None:
        """Change the file of events while the server is down. `killed`: it left no index of it behind."""
        self.server.stop()
        self.block.write_bytes(how(self.block.read_bytes()))
        if killed:
            (self.store / "msgs" / "index.db").unlink(missing_ok=True)
        self.server.start()

    def copy_to(self, where: Path, *what: Path) -> None:
        for path in what or (self.home / "nats" / "jetstream", self.home / "keeper"):
            shutil.copytree(path, where / path.relative_to(self.home))

    def put_back(self, where: Path) -> None:
        """What `copy_to` has copied."""
        for path in (self.home / "nats" / "jetstream", self.home / "keeper"):
            kept = where / path.relative_to(self.home)
            if kept.exists():
                shutil.rmtree(path)
                shutil.copytree(kept, path)


async def settled(keeper: Keeper) -> None:
    """Return when the keeper has compared everything, or found something."""
    await until(lambda: keeper.health()["state"] in ("whole", "broken"))


async def until(condition: Callable[[], object], what: str = "") -> None:
    end = asyncio.get_running_loop().time() + WAIT_S
    while not condition():
        assert asyncio.get_running_loop().time() < end, what or "it did not come about"
        await asyncio.sleep(0.005)


async def until_true(ask, what: str = "") -> None:
    """The same for what is asked over the bus."""
    end = asyncio.get_running_loop().time() + WAIT_S
    while True:
        try:
            if await ask():
                return
        except Failure:
            await asyncio.sleep(0.05)
        assert asyncio.get_running_loop().time() < end, what or "it did not come about"
        await asyncio.sleep(0.01)


async def sell(bus: Bus, count: int, *, start: int = 0, size: int = 0) -> list[int]:
    """Events of four conversations."""
    pad = b"." * size
    return [
        await bus.publish_raw(SOLD, b"apple %d %s" % (n, pad), headers={"correlation_id": f"conversation-{n % 4}"})
        for n in range(start, start + count)
    ]


def records(block: bytes) -> list[tuple[int, int, int]]:
    """(offset, length, sequence) of each record, as nats-server 2.15 writes them."""
    found, at = [], 0
    while at + 22 <= len(block):
        length, sequence = struct.unpack_from("<IQ", block, at)
        length &= 0x7FFF_FFFF
        found.append((at, length, sequence))
        at += length
    return found


async def readable(bus: Bus) -> dict[int, bytes]:
    """Every event that the server still gives out, by sequence, however it is asked."""
    from bus.eventlog import EventLog

    return {event.sequence: event.body for event in await EventLog(bus).read(0, 100_000)}


def first_lost(before: dict[int, bytes], after: dict[int, bytes]) -> int | None:
    """The first sequence that is not what it was."""
    return min((sequence for sequence, body in before.items() if after.get(sequence) != body), default=None)
