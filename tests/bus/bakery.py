"""An actor whose handlers do what a test says, served by a responder on a real server."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar

from pydantic import Field

from bus import Actor, Call
from bus import call as headers
from bus.nats_server import NatsServer
from bus.resources import Resources
from bus.responder import Responder
from bus.wire import Msg, Wire
from schemas.message import Message, Nothing, Request, Secret, Streamed
from tests.bus.shop import until
from tests.bus.wires import opened


class Loaf(Message):
    n: int


class Crumb(Message):
    i: int
    pad: str = Field(default="", exclude_if=lambda pad: not pad)


class Bake(Request[Loaf]):
    """Not to be done twice."""

    subject: ClassVar = "vx11.baker.bake"
    timeout: ClassVar = 3.0

    n: int = 0
    pad: str = ""


class Knead(Request[Loaf]):
    """May be done twice."""

    subject: ClassVar = "vx11.baker.knead"
    idempotent: ClassVar = True

    n: int = 0


class Look(Request[Loaf]):
    subject: ClassVar = "vx11.baker.look"
    passive: ClassVar = True


class Slice(Streamed[Crumb, Loaf]):
    subject: ClassVar = "vx11.baker.slice"

    n: int = 3
    pad: int = 0


class Login(Request[Nothing]):
    subject: ClassVar = "vx11.baker.login"

    user: str
    password: Secret


Act = Callable[[Any, Call], Awaitable[Any]]


@dataclass
class Oven:
    """`done`: which request classes were executed, in order. `act` runs inside the handlers and may wait, or raise."""

    act: Act | None = None
    done: list[str] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)
    gate: asyncio.Event = field(default_factory=asyncio.Event)

    async def use(self, request: Any, call: Call) -> Any:
        self.done.append(type(request).__name__)
        self.calls.append(call)
        return await self.act(request, call) if self.act else None

    async def wait(self, request: Any, call: Call) -> None:
        """As `act`: until the test opens the gate."""
        await self.gate.wait()


def bakery(**options: Any) -> Actor:
    """A fresh declaration."""
    actor = Actor("baker", summary="bakes", **options)

    @actor.handles
    async def bake(request: Bake, oven: Oven, call: Call) -> Loaf:
        return await oven.use(request, call) or Loaf(n=request.n)

    @actor.handles
    async def knead(request: Knead, oven: Oven, call: Call) -> Loaf:
        return await oven.use(request, call) or Loaf(n=request.n)

    @actor.handles
    async def look(request: Look, oven: Oven, call: Call) -> Loaf:
        return await oven.use(request, call) or Loaf(n=0)

    @actor.handles
    async def login(request: Login, oven: Oven, call: Call) -> Nothing:
        return await oven.use(request, call) or Nothing()

    @actor.handles
    async def slice_(request: Slice, oven: Oven, call: Call) -> AsyncIterator[Crumb | Loaf]:
        for i in range(request.n):
            await oven.use(request, call)
            yield Crumb(i=i, pad="x" * request.pad)
        yield Loaf(n=request.n)

    return actor


@dataclass
class Bakery:
    """The responder, its oven, and a stock client to ask it with."""

    responder: Responder
    oven: Oven
    wire: Wire
    asks: Wire
    inboxes: dict[str, list[Msg]] = field(default_factory=dict)

    def send(self, verb: str, document: Any = None, *, inbox: str = "", **head: str) -> list[Msg]:
        """Ask; what comes back is collected in the returned list. Headers are named with `_` for `-`."""
        got = self.inboxes.get(inbox)
        if got is None:
            got = self.inboxes[inbox or f"#{len(self.inboxes)}"] = []
            _, got_reply = self.asks.await_answer(got.append)
            self._replies[id(got)] = got_reply
        body = document if isinstance(document, bytes) else json.dumps(document or {}).encode()
        made = {name.replace("_", "-"): value for name, value in head.items()}
        self.asks.send(f"vx11.baker.{verb}", body, reply=self._replies[id(got)], headers=made or None)
        return got

    def __post_init__(self) -> None:
        self._replies: dict[int, str] = {}

    async def ask(self, verb: str, document: Any = None, **head: str) -> tuple[dict[str, Any], Mapping[str, str]]:
        """The document and headers of the first answer."""
        got = self.send(verb, document, **head)
        await until(lambda: got)
        return json.loads(got[0].data), got[0].headers or {}

    async def settled(self) -> None:
        """Return once all that was sent has been received, and answered as far as it will be just now."""
        await self.asks.barrier()
        await self.wire.barrier()
        await self.asks.barrier()


@asynccontextmanager
async def serving(server: NatsServer, *, run: str = "run1", describe: bytes = b"{}", **options: Any) -> AsyncIterator[Bakery]:
    """A baker at work, in the queue group of its name."""
    actor, oven = bakery(**options), Oven()
    async with opened(server, "actor") as wire, opened(server, "madre") as asks:
        resources = Resources(actor, {Oven: oven})
        responder = Responder(actor, wire, resources, run=run, describe=lambda: describe)
        await wire.hear("vx11.baker.>", responder.receive, queue="baker")
        await wire.barrier()
        try:
            yield Bakery(responder, oven, wire, asks)
        finally:
            oven.gate.set()
            responder.disown_doubts()
            await responder.idle()


def deadline(seconds: float) -> str:
    """The header's value for so many seconds from now."""
    return str(int((time.time() + seconds) * 1000))


def code_of(msg: Msg) -> str:
    """The error code of an answer, `ok` for a good one."""
    return "ok" if headers.ERROR not in (msg.headers or {}) else str(json.loads(msg.data)["error"])
