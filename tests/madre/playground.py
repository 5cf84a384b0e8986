"""madre as she is, on a real server, with a host and instances in the test's own process, which a test may stop and kill."""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from actors.madre.driven import Driven
from actors.madre.main import Madre
from bus import Actor, Settings
from bus.cards import card_of
from bus.client import Bus
from bus.instance import CLEAN_EXITS, Instance
from bus.nats_server import NatsServer
from bus.start import Start
from bus.wire import Msg, Wire
from schemas.card import Card
from schemas.errors import Failure
from tests.bus.bakery import Loaf, Oven, bakery, code_of
from tests.bus.shop import connected, until
from tests.bus.wires import answered

BEAT_S = 0.05
"""Actors of tests are idle soon, and so beat often."""


@dataclass
class Run:
    """One instance. `code` is None while it lives."""

    start: Start
    bus: Bus
    task: asyncio.Task[int]
    code: int | None = None


LOOK_S = 0.05


@dataclass
class Host:
    """Starts instances as tasks with connections of their own. `deaf`: it starts none, as if there were no host."""

    server: NatsServer
    bus: Bus
    home: Path
    oven: Oven
    version: str = "card1"
    deaf: bool = False
    silent: bool = False
    """It tells of no exit until it is asked."""
    started: list[Run] = field(default_factory=list)
    asked: list[dict[str, Any]] = field(default_factory=list)
    options: dict[str, Any] = field(default_factory=dict)
    _stack: AsyncExitStack = field(default_factory=AsyncExitStack)
    _watching: set[asyncio.Task[None]] = field(default_factory=set)

    async def serve(self) -> None:
        await self.bus.listen("vx11.events.power.activate.*", self._heard_activate, queue="hosts")
        await self.bus.listen("vx11.host.*.*", self._heard_order)
        await self.bus.wire.barrier()

    def actor(self) -> Actor:
        actor = bakery(**{"idle_after": 30.0, **self.options})

        @actor.resource
        async def make_oven() -> AsyncIterator[Oven]:
            yield self.oven

        return actor

    def card(self) -> Card:
        return card_of(self.actor(), card_version=self.version)

    async def register(self) -> None:
        body = json.dumps({"card": self.card().model_dump(mode="json"), "host": "h"}).encode()
        await self.bus.ask("vx11.madre.register", body, timeout=5.0, idempotent=True)

    def _heard_activate(self, msg: Msg) -> None:
        order = json.loads(msg.data)
        known = next((run for run in self.started if run.start.id == order["id"]), None)
        if known and known.code is not None:
            self._tell(known)
        if known or self.deaf:
            return
        run_id = secrets.token_hex(4)
        start = Start("baker", order["id"], run_id, order["revision"], order["epoch"], "h", order["record"], self.version)
        self._watch(self._live(start))

    async def _live(self, start: Start) -> None:
        connection = Bus.connect(self.server.url, user="actor", seed=self.server.seed_file("actor"), name="t", actor="baker")
        async with connection as bus:
            instance = Instance(self.actor(), start, bus, Settings(self.home))
            run = Run(start, bus, asyncio.create_task(instance.live()))
            self.started.append(run)
            await asyncio.wait([run.task])
            dead = run.task.cancelled() or run.task.exception() is not None
            if dead:
                bus.wire.is_closed, bus.wire.is_connected = True, False
                bus.wire._line.transport.abort()  # as the kernel does: nothing more is sent
        run.code = -9 if dead else run.task.result()
        if not self.silent:
            self._tell(run)

    def _tell(self, run: Run) -> None:
        start = run.start
        told = {"actor": "baker", "id": start.id, "run": start.run, "code": run.code, "clean": run.code in CLEAN_EXITS}
        self.bus.wire.send("vx11.events.power.exited.baker", json.dumps(told).encode())

    def _heard_order(self, msg: Msg) -> None:
        if not msg.subject.endswith(".ask"):
            return
        order = json.loads(msg.data)
        self.asked.append(order)
        for run in self.started:
            if run.start.run == order["run"]:
                if run.code is not None:
                    self._tell(run)
                elif order["kill"]:
                    run.task.cancel()

    def _watch(self, coroutine: Any) -> None:
        task = asyncio.create_task(coroutine)
        self._watching.add(task)
        task.add_done_callback(self._watching.discard)

    async def close(self) -> None:
        self.deaf = True
        self.oven.gate.set()
        while self._watching:  # one that still connects is not among the started yet
            for run in self.started:
                run.task.cancel()
            await asyncio.wait(self._watching, timeout=LOOK_S)


@dataclass
class Playground:
    """`oven` says what handlers do and writes down what they did; `asks` is a stock client."""

    server: NatsServer
    home: Path
    host: Host
    asks: Wire
    caller: Bus
    madres: list[Madre] = field(default_factory=list)
    _stack: AsyncExitStack = field(default_factory=AsyncExitStack)

    @property
    def madre(self) -> Madre:
        return self.madres[-1]

    @property
    def oven(self) -> Oven:
        return self.host.oven

    @property
    def baker(self) -> Driven:
        return self.madre.machine.driven["baker"]

    @property
    def state(self) -> str:
        return self.baker.power.state

    async def new_madre(self, **variables: str) -> Madre:
        bus = await self._stack.enter_async_context(connected(self.server, "madre"))
        bus.name = "madre"
        madre = Madre(bus, Settings(self.home, variables))
        self.madres.append(madre)
        await madre.open()
        return madre

    async def until(self, *states: str) -> None:
        await until(lambda: self.state in states and not self.baker.storing)

    async def ask(self, verb: str = "bake", document: Any = None, headers: Mapping[str, str] | None = None) -> Msg:
        """As a stock client: one request, the first answer."""
        return await answered(self.asks, f"vx11.baker.{verb}", json.dumps(document or {}).encode(), headers)

    def send(self, verb: str = "bake", document: Any = None) -> list[Msg]:
        """As a stock client, without waiting; answers are collected in the returned list."""
        got: list[Msg] = []
        _, reply = self.asks.await_answer(got.append)
        self.asks.send(f"vx11.baker.{verb}", json.dumps(document or {}).encode(), reply=reply)
        return got

    async def sleep(self) -> None:
        """Put it to sleep, and wait until it does: an acknowledgement on its way may call the first drain off."""
        while self.state != "dormant" or self.baker.storing:
            with contextlib.suppress(Failure):
                await self.madre.control.sleep("baker", "test")

    async def close(self) -> None:
        await self.host.close()
        for madre in self.madres:
            await close(madre)
        await self._stack.aclose()


async def close(madre: Madre, *, successor: bool = False) -> None:
    """Have her give back what she holds and leave, as her process does. Idempotent."""
    if madre._bus.wire.is_closed:
        return
    await madre.close(successor=successor)
    tasks = {*madre._tasks, *madre.machine._tasks}
    if tasks:
        await asyncio.wait(tasks)
    await madre._bus.wire.aclose()


@asynccontextmanager
async def playground(
    server: NatsServer, home: Path, *, options: dict[str, Any] | None = None, **variables: str
) -> AsyncIterator[Playground]:
    """Streams, madre, a host that has registered `baker`, a stock client and a typed one."""
    async with AsyncExitStack() as stack:
        host_bus = await stack.enter_async_context(connected(server, "host"))
        caller = await stack.enter_async_context(connected(server, "client"))
        asks = await stack.enter_async_context(connected(server, "client"))
        host = Host(server, host_bus, home, Oven(), options=options or {})
        ground = Playground(server, home, host, asks.wire, caller)
        stack.push_async_callback(_clean, ground)
        await ground.new_madre(**variables)
        await host.serve()
        await host.register()
        yield ground


async def _clean(ground: Playground) -> None:
    api = None
    await ground.close()
    async with connected(ground.server, "madre") as boss:
        api = boss.api
        for name in (await api("$JS.API.STREAM.NAMES"))["streams"] or ():
            await api(f"$JS.API.STREAM.DELETE.{name}")


def codes(got: list[Msg]) -> list[str]:
    return [code_of(msg) for msg in got]


__all__ = ["Callable", "Loaf", "Playground", "codes", "playground"]
