"""Part of must-show 2: durable consumers go on within two seconds of a killed server's return, and what was stored is handled."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bus.client import Bus
from bus.process import is_same, started_at
from gateway.torture.system import System, scratch
from schemas.errors import Failure
from tests.log.mill import ACTORS, FED, hears

KILLS = 5 if os.environ.get("VX11_LONG_LOG") else 2
RESUME_S = 2.0
BACK_S = 30.0


@pytest.fixture
def system(tmp_path: Path) -> Iterator[System]:
    variables = {"VX11_ACTORS_PATH": str(ACTORS), "VX11_IDLE_AFTER": "300"}
    with scratch(tmp_path / "home", services="madre,host", variables=variables) as system:
        yield system


async def feed(bus: Bus, n: int) -> float:
    """Store one event, however long there is no server; when that was."""
    body = json.dumps({"n": n}).encode()
    while True:
        try:
            await bus.api(FED, body, timeout=0.5, headers={"Nats-Msg-Id": f"fed-{n}"})
            return time.time()
        except Failure:
            await asyncio.sleep(0.01)


def ground(system: System) -> dict[int, float]:
    file = system.home / "mill.jsonl"
    lines = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    return {one["n"]: one["at"] for one in reversed(lines)}  # the first time that it was handled


async def handled(system: System, n: int) -> float:
    end = time.monotonic() + BACK_S
    while n not in (done := ground(system)):
        assert time.monotonic() < end, f"{n} was stored and is not handled"
        await asyncio.sleep(0.01)
    return done[n]


async def test_consumers_go_on_soon_after_the_server_is_back(system: System) -> None:
    async with Bus.connect(system.url, user="client", seed=system.seed("client"), name="test", fast=True) as bus:
        await hears(bus)
        await feed(bus, 0)
        await handled(system, 0)
        gaps = []
        for n in range(1, KILLS + 1):
            pid = system.pid("nats-server")
            born = started_at(pid)
            os.kill(pid, signal.SIGKILL)
            while is_same(pid, born):
                await asyncio.sleep(0.005)
            stored = await feed(bus, n)
            gaps.append(await handled(system, n) - stored)
    sys.stdout.write(f"\nfrom the first event that the server stored after its return to its handling: {gaps} s")
    assert max(gaps) < RESUME_S
    assert set(ground(system)) == set(range(KILLS + 1))
