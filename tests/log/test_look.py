"""`vx11 events`, `top` and `why` as they are typed, on a running system: over a restart of its server, and without madre."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from bus import streams
from bus.client import Bus
from bus.eventlog import EventLog
from bus.loading import TREE
from bus.nats_server import embedded
from bus.records import Records
from gateway.cli.bus_remote import BusRemote
from gateway.cli.events import Wanted, newest
from gateway.cli.why import SILENT, _explained
from gateway.http.lines import EventLine
from gateway.torture.system import System, scratch
from schemas.errors import Failure
from schemas.power import ActorRecord
from tests.bus.shop import connected, until

WAIT_S = 20.0
NOTED = "vx11.events.echo.noted"


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    with scratch(tmp_path_factory.mktemp("look") / "home") as system:
        yield system


def client(system: System) -> Any:
    return Bus.connect(system.url, user="client", seed=system.seed("client"), name="test", fast=True)


def vx11(home: Path, *words: str) -> list[str]:
    return [sys.executable, "-m", "gateway.cli", "--home", str(home), *words]


def ran(system: System, *words: str) -> list[dict[str, Any]]:
    """The JSON lines that a command printed."""
    done = subprocess.run(vx11(system.home, *words), cwd=TREE, capture_output=True, text=True, timeout=WAIT_S, check=False)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@contextmanager
def following(system: System, *words: str) -> Iterator[list[dict[str, Any]]]:
    """What a command that goes on has printed so far; at the end Ctrl-C, as a person ends it."""
    lines: list[dict[str, Any]] = []
    process = subprocess.Popen(vx11(system.home, *words), cwd=TREE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    out = process.stdout
    assert out is not None
    reading = threading.Thread(target=lambda: lines.extend(map(json.loads, out)))
    reading.start()
    try:
        yield lines
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(WAIT_S)
        reading.join()
        out.close()
    assert process.returncode == 0


async def publish(bus: Bus, *numbers: int) -> None:
    for number in numbers:
        await bus.publish_raw(NOTED, json.dumps({"n": number}).encode(), message_id=f"noted-{number}")


def noted(lines: list[dict[str, Any]]) -> list[int]:
    return [line["payload"]["n"] for line in lines if line.get("subject") == NOTED]


async def ready(bus: Bus) -> None:
    """The streams are there and the host has told of its actors."""
    async with asyncio.timeout(WAIT_S):
        while True:
            try:
                await bus.ask("vx11.echo.echo", b'{"n": 1}', timeout=5.0, idempotent=True)
                return
            except Failure:
                await asyncio.sleep(0.05)


async def test_it_follows_over_the_death_of_the_server_without_loss_or_repeat(system):
    async with client(system) as bus:
        await ready(bus)
        with following(system, "events", "--follow", "--json", "--filter", "echo.>", "-n", "0") as lines:
            await publish_until_seen(bus, lines)
            await publish(bus, *range(10))
            victim = system.pid("nats-server")
            assert system.owns(victim)
            os.kill(victim, signal.SIGKILL)
            await publish(bus, *range(10, 20))
            await until(lambda: len([n for n in noted(lines) if n >= 0]) >= 20, WAIT_S)
            await publish(bus, 20)
            await until(lambda: 20 in noted(lines), WAIT_S)
        assert [n for n in noted(lines) if n >= 0] == list(range(21))
        assert not any("gap" in line for line in lines)
        assert [line["id"] for line in lines] == sorted({line["id"] for line in lines})


async def publish_until_seen(bus: Bus, lines: list[dict[str, Any]]) -> None:
    """It starts at the end of the log: something has to come after that."""
    async with asyncio.timeout(WAIT_S):
        number = 0
        while not lines:
            number -= 1
            await publish(bus, number)
            await asyncio.sleep(0.05)


async def test_what_happened_is_listed_by_actor_severity_conversation_and_time(system):
    async with client(system) as bus:
        await ready(bus)
        await bus.publish_raw(NOTED, b'{"n": -1}', headers={"correlation_id": "a-conversation"})
        log = EventLog(bus)

        async def found(limit: int = 1_000, **wanted: Any) -> list[EventLine]:
            _, last = await log.bounds()
            return [line for _, line in await newest(log, Wanted(**wanted), limit, last)]

        assert [line.payload for line in await found(correlation="a-conversation")] == [{"n": -1}]
        mine = await found(actor="echo")
        assert {line.module for line in mine} == {"echo"}
        assert {"power.activate", "echo.noted"} <= {line.type for line in mine}
        assert {line.severity for line in await found(severity="warning")} <= {"warning", "error"}
        everything = await found()
        assert [line.id for line in everything] == sorted(line.id for line in everything)
        assert await found(3) == everything[-3:]
        assert await found(since=time.time() + 3_600) == []
        assert len(await found(since=time.time() - 3_600)) == len(everything)
        (line,) = await asyncio.to_thread(ran, system, "events", "--json", "--filter", "echo.noted", "-n", "1")
        assert (line["subject"], line["correlation_id"]) == (NOTED, "a-conversation")


async def test_top_shows_who_works_how_fast_and_wakes_nobody(system):
    async with client(system) as bus:
        await ready(bus)

        async def work() -> None:
            while True:
                await bus.ask("vx11.echo.echo", b'{"n": 1}', timeout=5.0, idempotent=True)
                await asyncio.sleep(0.01)

        working = asyncio.create_task(work())
        try:
            (picture,) = await asyncio.to_thread(ran, system, "top", "--once", "--json", "--every", "1")
        finally:
            working.cancel()
            await asyncio.gather(working, return_exceptions=True)
    echo, *others = picture["actors"]
    assert echo["actor"] == "echo"
    assert echo["rate"] > 5
    assert 0 < echo["p50_ms"] <= echo["p99_ms"]
    assert echo["memory_bytes"] > 1_000_000
    assert {other["state"] for other in others} == {"dormant"}
    assert [other["wakes"] for other in others] == [0] * len(others)


async def test_without_madre_the_log_itself_is_asked(tmp_path):
    with embedded(tmp_path) as server:
        async with connected(server, "madre") as madre:
            await streams.ensure_streams(madre.api, streams.stream_configs(madre.wire.max_payload))
            woken = {"actor": "echo", "id": "echo-1-1", "cause": "operator", "reason": "needed"}
            await madre.publish_raw("vx11.events.power.activate.echo", json.dumps(woken).encode())
            await Records(madre).swap(ActorRecord(actor="echo", state="active", reason="awake"), 0)
            async with connected(server, "client") as bus:
                told = await _explained(BusRemote(bus, server.url), "echo", 20)
                assert told.sentence == f"{SILENT}. Her last record says that echo is active: awake."
                assert [(step.what, step.reason) for step in told.steps] == [("waking", "needed")]
