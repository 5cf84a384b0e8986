"""A whole VX11 on a small disk of its own: filled to the last byte and emptied again, with what was seen as one JSON document.

Run by `test_full_disk` in a mount namespace of its own, so that the disk is gone with this process, however it ends.
"""

from __future__ import annotations

import asyncio
import errno
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from bus.client import Bus
from bus.eventlog import EventLog
from gateway.torture.system import System, door_open, scratch
from schemas.errors import Failure
from schemas.keeper import Verify

DISK_MB = 64
SUBJECT = "vx11.events.echo.noted"
EVENT_BYTES = 20_000
LOW_BYTES = 2 * 1024 * 1024
"""Less than the reserve of this disk, which is 5 % of it, and more than a message needs."""
PATIENCE_S = 30.0


@dataclass
class Scene:
    """`journal`: what was acknowledged, by the number that each event has in it."""

    system: System
    bus: Bus
    http: aiohttp.ClientSession
    disk: Path
    journal: dict[int, int] = field(default_factory=dict)
    number: int = 0

    async def publish(self, size: int = EVENT_BYTES) -> str:
        """One more event, or the last one again if it was not acknowledged: `ok`, or what went wrong."""
        body = json.dumps({"n": self.number, "pad": "x" * size}).encode()
        try:
            done = await self.bus.api(SUBJECT, body, timeout=1.0, headers={"Nats-Msg-Id": f"event-{self.number}"})
        except Failure as failure:
            return failure.code
        self.journal[self.number] = int(done["seq"])
        self.number += 1
        return "ok"

    async def door(self, method: str, path: str, body: Any = None) -> tuple[int, dict[str, Any]]:
        headers = {"X-VX11-Token": self.system.token}
        async with self.http.request(method, self.system.http_url + path, json=body, headers=headers) as answer:
            return answer.status, await answer.json()

    async def note(self) -> tuple[int, dict[str, Any]]:
        return await self.door("POST", "/events/echo/noted", {"n": -1})

    async def status(self) -> dict[str, Any]:
        return (await self.door("GET", "/vx11/status"))[1]

    def strike(self, name: str) -> None:
        pid = self.system.pid(name)
        assert self.system.owns(pid)
        os.kill(pid, signal.SIGKILL)

    def free(self) -> int:
        seen = os.statvfs(self.disk)
        return seen.f_bavail * seen.f_frsize

    def fill(self, left: int) -> None:
        """Take all but `left` bytes of the disk. Others write meanwhile, so the last byte may be gone when it is asked for."""
        with (self.disk / "ballast").open("ab", buffering=0) as ballast:
            while (more := self.free() - left) > 0:
                try:
                    ballast.write(bytes(min(more, 1024 * 1024)))
                except OSError as refused:
                    if refused.errno != errno.ENOSPC:
                        raise

    async def until(self, ready: Callable[[], Awaitable[bool]], what: str) -> float:
        """Seconds until it was so."""
        begun = time.monotonic()
        while not await ready():
            if time.monotonic() - begun > PATIENCE_S:
                raise TimeoutError(what)
            await asyncio.sleep(0.05)
        return round(time.monotonic() - begun, 2)


async def play(scene: Scene) -> dict[str, Any]:
    seen: dict[str, Any] = {}

    async def published() -> bool:
        return await scene.publish() == "ok"

    async def taken() -> bool:
        return (await scene.note())[0] == 200

    async def readable() -> bool:
        return (await scene.door("GET", "/operator/api/events?limit=1"))[0] == 200

    async def refused() -> bool:
        return (await scene.note())[0] == 507

    await scene.until(published, "no stream")
    await scene.until(taken, "the door takes no events")
    for _ in range(200):
        await scene.publish()

    scene.fill(LOW_BYTES)
    seen["refused_after_s"] = await scene.until(refused, "nothing is refused with little room")
    seen["refusal"] = (await scene.note())[1]
    seen["low"] = await scene.status()
    seen["reading"] = (await scene.door("GET", "/operator/api/events?limit=1"))[0]
    seen["control"] = [(await scene.door("POST", f"/madre/power/service/echo/{verb}"))[0] for verb in ("wake", "sleep")]
    seen["in_reserve"] = await scene.publish()

    scene.fill(0)
    while (outcome := await scene.publish()) == "ok":
        continue
    seen["full"] = [outcome, await scene.publish(), (await scene.note())[0]]
    for victim in ("madre", "nats-server"):  # neither needs room to come back
        scene.strike(victim)
    await scene.until(readable, "nothing can be read")

    (scene.disk / "ballast").unlink()
    seen["stored_again_after_s"] = await scene.until(published, "nothing is stored though there is room")
    seen["taken_again_after_s"] = await scene.until(taken, "the door takes nothing though there is room")
    seen["woken"] = (await scene.door("POST", "/call/echo/echo", {"n": 1}))[0]
    seen["chat"] = (await scene.door("POST", "/operator/api/chat", {"message": "status"}))[0]
    for _ in range(20):
        await scene.publish()
    seen["well"] = await scene.status()
    seen |= await stored(scene)
    seen["chain"] = (await scene.bus.request(Verify(), timeout=PATIENCE_S)).model_dump(mode="json")
    return seen


async def stored(scene: Scene) -> dict[str, Any]:
    """What the log has of all this."""
    log = EventLog(scene.bus)

    async def told() -> bool:
        return any(one.subject.endswith(".server_mended") for one in await log.read(0, 100_000))

    await scene.until(told, "no word of the restart")
    events = await log.read(0, 100_000)
    numbers = [json.loads(one.body)["n"] for one in events if one.subject == SUBJECT]
    mine = [number for number in numbers if number >= 0]
    return {
        "acknowledged": len(scene.journal),
        "lost": sorted(set(scene.journal) - set(mine)),
        "twice": sorted({number for number in mine if mine.count(number) > 1}),
        "told": [one.subject.split(".")[-1] for one in events if one.subject.startswith("vx11.events.supervisor.")],
    }


async def main(disk: Path) -> dict[str, Any]:
    with scratch(disk / "home", services="madre,host,keeper,tentaculo_link") as system:
        await door_open(system)
        async with (
            Bus.connect(system.url, user="client", seed=system.seed("client"), name="test", fast=True) as bus,
            aiohttp.ClientSession() as http,
        ):
            return await play(Scene(system, bus, http, disk))


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK_MB}m", "none", str(folder)], check=True)
    sys.stdout.write(json.dumps(asyncio.run(main(folder))))
