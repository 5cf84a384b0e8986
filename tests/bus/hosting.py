"""A real host with its zygote, in a process of its own, and the test in madre's place."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from bus import streams
from bus.client import Bus
from bus.host import host_name
from bus.loading import TREE, find_actors
from bus.nats_server import NatsServer, embedded
from bus.records import BUCKET, Records
from bus.wire import Msg, Wire
from schemas.power import ActorRecord
from tests.bus.shop import connected, make_streams, until
from tests.bus.wires import answered

RUN_HOST = """
import json, sys
from pathlib import Path
from bus.host import run
from bus.settings import Settings
from bus.supervisor import start_logging
start_logging()
sys.exit(run(Settings(Path(sys.argv[1]), json.loads(sys.argv[2])), sys.argv[3]))
"""

GREETER = '''"""{name}: greets."""

import os
from typing import ClassVar

from bus import Actor
from schemas.message import Message, Request


class Greeted(Message):
    text: str
    pid: int


class Greet(Request[Greeted]):
    subject: ClassVar = "vx11.{name}.greet"


class Crash(Request[Greeted]):
    subject: ClassVar = "vx11.{name}.crash"


actor = Actor("{name}", summary="greets", idle_after=60)


@actor.handles
async def greet(request: Greet) -> Greeted:
    print("greeting", flush=True)
    return Greeted(text="{text}", pid=os.getpid())


@actor.handles
async def crash(request: Crash) -> Greeted:
    os._exit(9)
'''


@dataclass
class Hosted:
    """`actors` is the folder that the host watches; `process` is the host's."""

    server: NatsServer
    home: Path
    variables: dict[str, str]
    process: subprocess.Popen[bytes] | None = None

    @property
    def actors(self) -> Path:
        return self.home / "actors"

    def write(self, name: str, text: str = "hello", source: str = GREETER) -> Path:
        folder = self.actors / name
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / "actor.py"
        file.write_text(source.replace("{name}", name).replace("{text}", text))
        return file

    def start(self) -> None:
        argv = [sys.executable, "-c", RUN_HOST, str(self.home), json.dumps(self.variables), self.server.url]
        with (self.home / "host.log").open("ab") as log:
            self.process = subprocess.Popen(argv, cwd=TREE, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def stop(self) -> None:
        """Whatever the test did to it."""
        if self.process:
            self.process.kill()
            self.process.wait()

    def zygote(self) -> psutil.Process:
        [zygote] = psutil.Process(self.process.pid).children()
        return zygote


@contextmanager
def hosted(home: Path, *, variables: Mapping[str, str] | None = None) -> Iterator[Hosted]:
    """A server and a folder; `start` starts the host. All of it ends with the block."""
    home.mkdir(parents=True, exist_ok=True)
    with embedded(home) as server:
        made = Hosted(server, home, dict(variables or {}))
        try:
            yield made
        finally:
            made.stop()


@dataclass
class Madre:
    """Takes cards, orders what she likes, and hears what hosts and instances say."""

    bus: Bus
    records: Records
    cards: dict[str, dict[str, Any]] = field(default_factory=dict)
    told: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    sleeps: list[str] = field(default_factory=list)
    wakes: int = 0

    async def open(self) -> None:
        await self.bus.listen("vx11.madre.register", self._heard_card)
        await self.bus.listen("vx11.madre.sleep", lambda msg: self.sleeps.append(json.loads(msg.data)["name"]))
        await self.bus.listen("vx11.events.power.*.*", self._heard)
        await self.bus.wire.barrier()
        self.bus.wire.send("vx11.host.all.cards", b"{}")

    def _heard_card(self, msg: Msg) -> None:
        card = json.loads(msg.data)["card"]
        self.cards[card["name"]] = card
        self.bus.wire.send(msg.reply, b"{}")

    def _heard(self, msg: Msg) -> None:
        fact = msg.subject.split(".")[3]
        if fact != "activate":
            self.told.append((fact, json.loads(msg.data)))

    async def knows(self, *names: str) -> None:
        await until(lambda: set(names) <= set(self.cards))

    def events(self, fact: str, name: str) -> list[dict[str, Any]]:
        return [told for what, told in self.told if what == fact and told["actor"] == name]

    async def activate(
        self, name: str, id_: str = "", *, revision: int | None = None, headers: Mapping[str, str] | None = None
    ) -> str:
        """Order the actor to wake; the activation's id."""
        self.wakes += 1
        id_ = id_ or f"{name}-{self.wakes}-{time.monotonic_ns()}"
        if revision is None:
            _, current = await self.records.get(name)
            revision = await self.records.swap(ActorRecord(actor=name), current) or 0
        order = {"actor": name, "id": id_, "revision": revision, "epoch": 1, "record": {"actor": name}}
        self.bus.wire.send(f"vx11.events.power.activate.{name}", json.dumps(order).encode(), headers=headers)
        return id_

    async def wake(self, name: str) -> dict[str, Any]:
        """What the new instance says when it is awake."""
        await self.knows(name)
        before = len(self.events("active", name))
        await self.activate(name)
        await until(lambda: len(self.events("active", name)) > before)
        return self.events("active", name)[-1]

    async def greeted(self, name: str) -> dict[str, Any]:
        return json.loads((await answered(self.wire, f"vx11.{name}.greet", b"{}")).data)

    async def drain(self, name: str, run: str) -> None:
        self.wire.send(f"vx11.inst.{name}.{run}._drain", b'{"epoch": 1}')

    def ask_host(self, active: dict[str, Any], **more: Any) -> None:
        """What became of it?"""
        order = {name: active[name] for name in ("actor", "id", "run", "pid", "born")} | more
        self.wire.send(f"vx11.host.{host_name()}.ask", json.dumps(order).encode())

    async def exited(self, name: str, count: int = 1) -> dict[str, Any]:
        await until(lambda: len(self.events("exited", name)) >= count)
        return self.events("exited", name)[count - 1]

    @property
    def wire(self) -> Wire:
        return self.bus.wire


@asynccontextmanager
async def madre_of(house: Hosted) -> AsyncIterator[Madre]:
    async with connected(house.server, "madre") as bus:
        await make_streams(bus)
        await streams.ensure_stream(bus.api, streams.bucket_config(BUCKET, history=streams.ACTORS_HISTORY))
        made = Madre(bus, Records(bus))
        await made.open()
        yield made


def gone(*processes: psutil.Process) -> bool:
    return all(not p.is_running() or p.status() == psutil.STATUS_ZOMBIE for p in processes)


def kill(pid: int) -> None:
    psutil.Process(pid).send_signal(signal.SIGKILL)


async def spare_of(house: Hosted, madre: Madre, *, but: int = 0) -> int:
    """The pid of the parked child, once there is only that one: every card has been made."""
    await madre.knows(*find_actors([TREE, house.actors]))

    found: list[int] = []

    def parked() -> bool:
        found[:] = [child.pid for child in house.zygote().children() if child.pid != but]
        return len(found) == 1 and is_settled(house, found[0])

    await until(parked)
    return found[0]


def is_settled(house: Hosted, pid: int) -> bool:
    """It has imported what it will and waits: the host has the pipe over which it will be named."""
    return bool(pipes_of(pid) & pipes_of(house.process.pid))


def pipes_of(pid: int) -> set[str]:
    try:
        ends = [str(end.readlink()) for end in Path(f"/proc/{pid}/fd").iterdir()]
    except OSError:  # it has just ended, or has just closed one
        return set()
    return {end for end in ends if end.startswith("pipe:")}
