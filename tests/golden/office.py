"""A system with two actors of its own, whose calls are recorded with their bodies, and its command line."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from bus.client import Bus
from bus.eventlog import EventLog
from bus.streams import CALLS
from gateway.torture.system import System
from schemas.errors import Failure
from tests.e2e.command import Ran, Vx11

TELLER = '''"""teller: asks the clerk, tells, and answers."""

import os
import pathlib
import socket
import time
from collections.abc import AsyncIterator

from bus import Actor, Bus, Settings
from clerk.schema import Ask
from schemas.errors import Failure
from teller.schema import Chunk, Count, Counted, Reach, Reached, Tell, Told, Wished

actor = Actor("teller", summary="tells", record="full")


@actor.handles
async def tell(request: Tell, bus: Bus, settings: Settings) -> Told:
    if request.name == "home":
        return Told(text=f"it is {settings.home}", took_ms=0.0)
    if request.name == "nobody":
        raise Failure("not_found", "nobody is not here")
    await bus.publish(Wished(name=request.name))
    rank = await bus.request(Ask(name=request.name, at=time.time()))
    return Told(text=f"Hello, {rank.title} {request.name}!", took_ms=time.perf_counter())


@actor.on
async def wished(event: Wished) -> None:
    """Also on stage: what is published there is heard there."""


@actor.handles
async def count(request: Count) -> AsyncIterator[Chunk | Counted]:
    for i in range(request.n):
        yield Chunk(i=i)
    yield Counted(total=request.n)


@actor.handles
async def reach(request: Reach) -> Reached:
    tried = []
    for attempt in (
        lambda: socket.create_connection(("127.0.0.1", request.port), 1).close(),
        lambda: pathlib.Path(request.file).write_text("x"),
        lambda: pathlib.Path(request.file).unlink(),
        lambda: os.system("true"),
        lambda: socket.getaddrinfo("example.invalid", 80),
    ):
        try:
            attempt()
            tried.append("done")
        except PermissionError:
            tried.append("refused")
        except OSError:
            tried.append("done")
    return Reached(tried=tried)
'''
SCHEMA = '''"""What can be asked of teller."""

from typing import ClassVar

from schemas.message import Event, Message, Request, Secret, Streamed


class Told(Message):
    volatile: ClassVar = ("took_ms",)

    text: str
    took_ms: float


class Tell(Request[Told]):
    subject: ClassVar = "vx11.teller.tell"
    idempotent: ClassVar = True

    name: str = "Ana"
    pin: Secret = ""


class Chunk(Message):
    i: int


class Counted(Message):
    total: int


class Count(Streamed[Chunk, Counted]):
    subject: ClassVar = "vx11.teller.count"
    idempotent: ClassVar = True

    n: int = 3


class Reached(Message):
    tried: list[str]


class Reach(Request[Reached]):
    subject: ClassVar = "vx11.teller.reach"

    port: int
    file: str


class Wished(Event):
    subject: ClassVar = "vx11.events.teller.wished"

    name: str
'''
CLERK = '''"""clerk: knows titles, and counts how often it is asked."""

from bus import Actor
from clerk.schema import Ask, Rank

actor = Actor("clerk", summary="knows titles", record="full")
asked = []


@actor.handles
async def ask(request: Ask) -> Rank:
    asked.append(request.name)
    return Rank(title="Dr.", asked=len(asked))
'''
CLERK_SCHEMA = '''"""What can be asked of clerk."""

from typing import ClassVar

from schemas.message import Message, Request


class Rank(Message):
    title: str
    asked: int


class Ask(Request[Rank]):
    subject: ClassVar = "vx11.clerk.ask"
    idempotent: ClassVar = True
    volatile: ClassVar = ("at",)

    name: str
    at: float
'''


class Office:
    """A system with the two of them, and its command line."""

    def __init__(self, system: System) -> None:
        self.system = system
        self.vx11 = Vx11(system.home)
        self.source = system.home / "actors" / "teller" / "actor.py"

    def run(self, *words: str) -> Ran:
        return self.vx11.run("golden", *words)

    async def ask(self, *bodies: tuple[str, dict], conversation: str) -> list[int]:
        """Ask teller; the sequences of the records of these calls."""
        async with Bus.connect(self.system.url, user="client", seed=self.system.seed("client"), name="office") as bus:
            for verb, body in bodies:
                with contextlib.suppress(Failure):
                    await bus.ask(
                        f"vx11.teller.{verb}",
                        json.dumps(body).encode(),
                        timeout=20.0,
                        idempotent=True,
                        headers={"correlation_id": conversation},
                    )
            return await self.recorded(bus, conversation, len(bodies))

    async def recorded(self, bus: Bus, conversation: str, count: int) -> list[int]:
        """Wait until so many calls of teller in the conversation are recorded, and those of clerk that are inside."""
        log, end = EventLog(bus, CALLS), time.monotonic() + 20
        while time.monotonic() < end:
            found = [(stored, json.loads(stored.body)) for stored in await log.read(0, 10_000)]
            mine = [(stored, one) for stored, one in found if one["correlation_id"] == conversation and "event" not in one]
            teller = [stored.sequence for stored, one in mine if one["subject"].startswith("vx11.teller.")]
            greeted = [one for _, one in mine if str(one["reply"].get("text", "")).startswith("Hello")]
            clerk = [one for _, one in mine if one["subject"] == "vx11.clerk.ask"]
            if len(teller) == count and len(clerk) == len(greeted):
                return teller
            await asyncio.sleep(0.02)
        raise AssertionError(f"recorded: {[(one['subject'], one['code']) for _, one in mine]}")

    @contextlib.contextmanager
    def edited(self, old: str, new: str) -> Iterator[None]:
        """The code of today: with other words than that which was recorded."""
        text = self.source.read_text()
        assert old in text
        self.source.write_text(text.replace(old, new))
        try:
            yield
        finally:
            self.source.write_text(text)


def write_office(home: Path) -> None:
    for name, files in {
        "teller": {"actor.py": TELLER, "schema.py": SCHEMA},
        "clerk": {"actor.py": CLERK, "schema.py": CLERK_SCHEMA},
    }.items():
        folder = home / "actors" / name
        folder.mkdir(parents=True)
        for file, text in {"__init__.py": "", **files}.items():
            (folder / file).write_text(text)


def wait_until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)
