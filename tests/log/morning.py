"""A scripted morning: everything that can wake an actor, put it to sleep or end it, each with a conversation of its own."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bus import call
from bus.client import Bus
from bus.loading import TREE
from gateway.torture.system import System, scratch
from schemas.errors import Failure
from schemas.madre import ActorStatus, ListActors

IDLE_S = 1.5
PATIENCE_S = 30.0
SCHEMA = '''
from typing import ClassVar

from schemas.message import Event, Message, Request


class Sorted(Message):
    n: int


class Sort(Request[Sorted]):
    """Sort."""

    subject: ClassVar = "vx11.clerk.sort"
    idempotent: ClassVar = True
    n: int = 0


class Filed(Event):
    subject: ClassVar = "vx11.events.clerk.filed"
    n: int = 0
'''
ACTOR = f'''
"""clerk: sorts, and files what it is told of."""

import os
from collections.abc import AsyncIterator

from bus import Actor, Settings
from clerk.schema import Filed, Sort, Sorted

actor = Actor("clerk", summary="sorts", idle_after={IDLE_S})


class Desk:
    pass


@actor.resource
async def desk(settings: Settings) -> AsyncIterator[Desk]:
    if (settings.home / "broken").exists():
        os._exit(5)
    yield Desk()


@actor.handles
async def sort(request: Sort, desk: Desk) -> Sorted:
    return Sorted(n=request.n)


@actor.on(durable=True)
async def file(event: Filed, desk: Desk) -> None:
    return None
'''


@dataclass
class Morning:
    """`bus`: as an operator's client."""

    system: System
    bus: Bus
    folder: Path

    async def ask(self, subject: str, conversation: str, **fields: Any) -> dict[str, Any]:
        """The answer, or the error document."""
        end = time.monotonic() + PATIENCE_S
        while True:
            try:
                body = json.dumps(fields).encode()
                answer = await self.bus.ask(subject, body, timeout=15.0, headers={call.CORRELATION: conversation})
                found: dict[str, Any] = json.loads(answer.body)
                return found
            except Failure as failure:
                if (
                    failure.code not in ("unavailable", "timeout")
                    or "cannot be woken" in failure.message
                    or time.monotonic() > end
                ):
                    return failure.document()

    async def order(self, verb: str, conversation: str, **fields: Any) -> dict[str, Any]:
        return await self.ask(f"vx11.madre.{verb}", conversation, **fields)

    async def clerk(self) -> ActorStatus | None:
        try:
            listed = await self.bus.request(ListActors(), timeout=1.0)
        except Failure:
            return None
        return next((actor for actor in listed.actors if actor.name == "clerk"), None)

    async def until(self, ready: Callable[[ActorStatus], bool], what: str) -> ActorStatus:
        end = time.monotonic() + PATIENCE_S
        while (clerk := await self.clerk()) is None or not ready(clerk):
            if time.monotonic() > end:
                raise TimeoutError(f"{what}: {clerk}")
            await asyncio.sleep(0.02)
        return clerk

    async def state(self, *states: str) -> ActorStatus:
        return await self.until(lambda clerk: clerk.state in states, f"never {states}")

    async def awake(self, conversation: str) -> ActorStatus:
        """Woken by an operator."""
        await self.order("wake", conversation, name="clerk", reason="needed")
        return await self.state("active")

    def strike(self, pid: int, number: int = signal.SIGKILL) -> None:
        assert self.system.owns(pid)
        os.kill(pid, number)

    def why(self, *, last: int = 200) -> dict[str, Any]:
        words = ["--home", str(self.system.home), "why", "clerk", "--json", "-n", str(last)]
        done = subprocess.run(
            [sys.executable, "-m", "gateway.cli", *words], cwd=TREE, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        return found


@asynccontextmanager
async def morning(folder: Path) -> AsyncIterator[Morning]:
    clerk = folder / "actors" / "clerk"
    clerk.mkdir(parents=True)
    (clerk / "__init__.py").touch()
    (clerk / "schema.py").write_text(SCHEMA)
    (clerk / "actor.py").write_text(ACTOR)
    with scratch(folder / "home", variables={"VX11_ACTORS_PATH": str(folder / "actors")}) as system:
        async with Bus.connect(system.url, user="client", seed=system.seed("client"), name="test", fast=True) as bus:
            made = Morning(system, bus, clerk)
            await made.state("dormant")
            yield made


async def play(day: Morning) -> None:
    """Each thing once. Between two of them the actor may fall idle: that is a step like any other."""
    await day.ask("vx11.clerk.sort", "morning-request", n=1)
    await day.state("active")
    await day.order("sleep", "morning-sleep", name="clerk", reason="enough for now")
    await day.state("dormant")

    headers = {call.CORRELATION: "morning-event"}
    await day.bus.publish_raw("vx11.events.clerk.filed", b'{"n": 2}', headers=headers)
    await day.state("active")
    await day.state("dormant")  # idle

    await day.order("set_gate", "morning-gate", name="clerk", gate="closed")
    await day.ask("vx11.clerk.sort", "morning-denied", n=3)
    await day.order("set_gate", "morning-gate", name="clerk", gate="on_demand")

    day.strike((await day.awake("morning-wake")).pid)
    await day.until(lambda clerk: clerk.state == "dormant" and "-9" in clerk.reason, "the crash was not seen")

    window = (await day.order("open_window", "morning-window", services=["clerk"], mode="hold"))["window"]["window_id"]
    await day.state("active")
    await day.order("close_window", "morning-close", window_id=window)
    await day.state("dormant")
    await accidents(day)


async def accidents(day: Morning) -> None:
    before = (await day.awake("morning-edit")).card_version
    with (day.folder / "actor.py").open("a") as source:
        source.write("\n# edited\n")
    await day.until(lambda clerk: clerk.card_version != before and clerk.state == "dormant", "the edit was not seen")

    day.strike((await day.awake("morning-signal")).pid, signal.SIGTERM)
    await day.state("dormant")

    await day.awake("morning-host")
    day.strike(day.system.pid("host"))
    await day.until(lambda clerk: clerk.state in ("dormant", "failed"), "nobody noticed that the host is gone")

    (day.system.home / "broken").touch()
    await day.ask("vx11.clerk.sort", "morning-broken", n=4)
    await day.state("failed")
    (day.system.home / "broken").unlink()
    await day.state("dormant")

    await day.order("apply_policy", "morning-full", policy="full")
    await day.state("active")
    await day.order("apply_policy", "morning-solo", policy="solo_madre")
    await day.state("dormant")

    await day.order("renew_lease", "morning-lease", actor="clerk", ttl_sec=60)  # idle would be no accident
    for victim in ("nats-server", "madre"):
        was = await day.awake(f"morning-{victim}")
        day.strike(day.system.pid(victim))
        await day.until(
            lambda clerk, since=was.since: clerk.state == "active" and clerk.since != since, f"{victim} was not missed"
        )
