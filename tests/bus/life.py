"""One instance living in the test's own process, and madre's side of it: what it tells, and the orders it gets."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bus import Actor, Settings, streams
from bus.client import Bus
from bus.instance import Instance
from bus.nats_server import NatsServer
from bus.records import BUCKET, Records
from bus.start import Start
from bus.wire import Msg
from schemas.power import ActorRecord
from tests.bus.bakery import Oven, bakery
from tests.bus.shop import connected, make_streams, until
from tests.bus.wires import answered

RUN = "run1"
EPOCH = 5


class Cellar: ...


@dataclass
class Life:
    """`told`: power events in order. `beats`: heartbeats. `oven.opened` and `closed` are resources, in order."""

    boss: Bus
    bus: Bus
    oven: Oven
    actor: Actor
    instance: Instance
    records: Records
    living: asyncio.Task[int] | None = None
    told: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    beats: list[dict[str, Any]] = field(default_factory=list)
    resources: list[str] = field(default_factory=list)

    async def listen(self) -> None:
        await self.boss.listen("vx11.events.power.*.baker", self._heard)
        await self.boss.listen("vx11.hb.baker.*", lambda msg: self.beats.append(json.loads(msg.data)))
        await self.boss.wire.barrier()

    def _heard(self, msg: Msg) -> None:
        self.told.append((msg.subject.split(".")[3], json.loads(msg.data)))

    def start(self) -> asyncio.Task[int]:
        self.living = asyncio.create_task(self.instance.live())
        return self.living

    async def active(self) -> dict[str, Any]:
        """Start, and wait until it serves and hears."""
        living = self.start()
        await until(lambda: self.told or living.done())
        if living.done():
            living.result()
        await until(lambda: self.instance._orders._waiters)
        return self.told[0][1]

    def order(self, verb: str, **fields: Any) -> None:
        self.say(verb, json.dumps({"epoch": EPOCH, **fields}).encode())

    def say(self, verb: str, body: bytes) -> None:
        self.boss.wire.send(f"vx11.inst.baker.{RUN}.{verb}", body)

    async def drained(self) -> int:
        self.order("_drain")
        return await self.left()

    async def left(self) -> int:
        """Its exit code, after all that it said has been heard."""
        assert self.living
        code = await asyncio.wait_for(self.living, 10)
        await self.bus.wire.barrier()
        await self.boss.wire.barrier()
        return code

    async def ask(self, verb: str = "bake", *, private: bool = False) -> Msg:
        """As a stock client, on the shared subject or on the private one."""
        subject = f"vx11.inst.baker.{RUN}.{verb}" if private else f"vx11.baker.{verb}"
        return await answered(self.boss.wire, subject, b"{}")

    def facts(self) -> list[str]:
        return [fact for fact, _ in self.told]


def with_oven(actor: Actor, oven: Oven, resources: list[str]) -> None:
    """Two resources that write down when they are opened and closed."""

    @actor.resource
    async def cellar() -> AsyncIterator[Cellar]:
        resources.append("open cellar")
        yield Cellar()
        resources.append("close cellar")

    @actor.resource
    async def make_oven() -> AsyncIterator[Oven]:
        resources.append("open oven")
        yield oven
        resources.append("close oven")


@asynccontextmanager
async def life(
    server: NatsServer, home: Path, *, actor: Actor | None = None, record: ActorRecord | None = None
) -> AsyncIterator[Life]:
    """Everything ready for `start`: streams, the record at its revision, madre listening."""
    actor, oven, resources = actor or bakery(idle_after=1), Oven(), []
    with_oven(actor, oven, resources)
    async with connected(server, "madre") as boss:
        await make_streams(boss)
        await streams.ensure_stream(boss.api, streams.bucket_config(BUCKET, history=streams.ACTORS_HISTORY))
        records = Records(boss)
        revision = await records.swap(record, 0) if record else 0
        async with Bus.connect(server.url, user="actor", seed=server.seed_file("actor"), name="test", actor="baker") as bus:
            known = record.model_dump() if record else {"actor": "baker"}
            start = Start("baker", "id1", RUN, revision or 0, EPOCH, "host1", known, "card1")
            made = Life(boss, bus, oven, actor, Instance(actor, start, bus, Settings(home)), records, resources=resources)
            await made.listen()
            try:
                yield made
            finally:
                oven.gate.set()
                if made.living:
                    made.living.cancel()
                    await asyncio.wait([made.living])
        for name in (await boss.api("$JS.API.STREAM.NAMES"))["streams"] or ():
            await boss.api(f"$JS.API.STREAM.DELETE.{name}")
