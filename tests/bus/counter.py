"""A shop counter: the other end of a client's requests, scripted by the test; and what a test may say in madre's place."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar

from bus.client import Bus
from bus.nats_server import NatsServer
from bus.wire import Msg, Subscription, Wire
from schemas.errors import Failure
from schemas.message import Message, Request, Streamed
from schemas.power import Exited
from tests.bus.wires import opened


class Price(Message):
    euros: int


class Crumb(Message):
    n: int


class Ask(Request[Price]):
    """What does it cost?"""

    subject: ClassVar = "vx11.shop.ask"
    timeout: ClassVar = 3.0

    what: str = "bread"


class Look(Request[Price]):
    """A look at the price, which disturbs nobody."""

    subject: ClassVar = "vx11.shop.look"
    passive: ClassVar = True
    idempotent: ClassVar = True


class Slice(Streamed[Crumb, Price]):
    """Crumbs, then the price."""

    subject: ClassVar = "vx11.shop.slice"
    timeout: ClassVar = 3.0


PRICE = b'{"euros": 2}'


@dataclass
class Counter:
    """Writes down the requests; `act` answers them, or not."""

    wire: Wire
    act: Callable[[Counter, Msg], None]
    got: list[Msg] = field(default_factory=list)
    mine: Subscription | None = None

    async def open(self) -> None:
        self.mine = await self.wire.hear("vx11.shop.>", self._heard, queue="shop")
        await self.wire.barrier()

    def _heard(self, msg: Msg) -> None:
        self.got.append(msg)
        self.act(self, msg)

    def answer(self, msg: Msg, body: bytes = PRICE, **headers: str) -> None:
        self.wire.send(msg.reply, body, headers={k.replace("_", "-"): v for k, v in headers.items()} or None)

    def refuse(self, msg: Msg, failure: Failure, **headers: str) -> None:
        head = {"Nats-Service-Error": str(failure), "Nats-Service-Error-Code": str(failure.status)}
        head |= {k.replace("_", "-"): v for k, v in headers.items()}
        self.wire.send(msg.reply, json.dumps(failure.document("c-1234567")).encode(), headers=head)

    def header(self, name: str) -> list[str | None]:
        """The header of each request in turn."""
        return [(msg.headers or {}).get(name) for msg in self.got]


def sell(counter: Counter, msg: Msg) -> None:
    counter.answer(msg)


def ignore(counter: Counter, msg: Msg) -> None:
    """As an instance that dies with it."""


def ignore_first(counter: Counter, msg: Msg) -> None:
    if len(counter.got) > 1:
        counter.answer(msg)


@asynccontextmanager
async def counter(server: NatsServer, act: Callable[[Counter, Msg], None] = sell) -> AsyncIterator[Counter]:
    """An open shop."""
    async with opened(server, "actor") as wire:
        made = Counter(wire, act)
        await made.open()
        yield made


@asynccontextmanager
async def client(server: NatsServer, user: str = "client", **options: Any) -> AsyncIterator[Bus]:
    options = {"fast": True} | options
    async with Bus.connect(server.url, user=user, seed=server.seed_file(user), name="test", **options) as bus:
        await bus.wire.barrier()
        yield bus


@asynccontextmanager
async def madre(server: NatsServer, known: Mapping[str, Failure | None]) -> AsyncIterator[Wire]:
    """Somebody who answers `get_actor`: None for an actor that exists."""

    async with opened(server, "madre") as wire:

        def heard(msg: Msg) -> None:
            failure = known[json.loads(msg.data)["name"]]
            if failure is None:
                wire.send(msg.reply, b"{}")
                return
            head = {"Nats-Service-Error": str(failure), "Nats-Service-Error-Code": str(failure.status)}
            wire.send(msg.reply, json.dumps(failure.document()).encode(), headers=head)

        await wire.hear("vx11.madre.get_actor", heard)
        await wire.barrier()
        yield wire


def told_exit(wire: Wire, actor: str = "shop", run: str = "run1", *, clean: bool = False) -> None:
    """A host's report that a process of `actor` has ended."""
    exited = Exited(actor=actor, id="id1", run=run, pid=1, code=-9, clean=clean)
    wire.send(f"{Exited.subject}.{actor}", exited.model_dump_json().encode())
