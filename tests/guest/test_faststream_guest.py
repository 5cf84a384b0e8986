"""A stock FastStream program is a guest: it hears events, wakes actors by asking them, publishes; the conversation is one."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import nats
import pytest
from nats.aio.client import Client

from bus import call
from bus.client import Bus
from bus.eventlog import EventLog
from bus.loading import TREE
from bus.process import is_same, started_at
from gateway.torture.system import System, scratch
from schemas.madre import ActorStatus, GetActor, SetGate
from tests.bus.shop import until

PROGRAM = TREE / "deploy" / "examples" / "faststream_guest.py"
WONDERED, ANSWERED = "vx11.events.guest.wondered", "vx11.events.guest.answered"
SOON_S = 20.0
RESUME_S = 3.0
"""A server that has been killed is back within a second, and the guest's pull within another; and a busy machine."""


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    with scratch(tmp_path_factory.mktemp("guest"), services="madre,host", variables={"VX11_IDLE_AFTER": "300"}) as system:
        yield system


class Guest:
    def __init__(self, output: Path) -> None:
        self._output = output

    @property
    def said(self) -> list[list[str]]:
        return [line.split() for line in self._output.read_text().splitlines()]

    def conversations(self, subject: str) -> list[str]:
        return [words[2] for words in self.said if len(words) == 3 and words[1] == subject]


@contextmanager
def guest(system: System) -> Iterator[Guest]:
    """The program as anybody starts it; ended with Ctrl-C."""
    output = system.home / "guest.log"
    with output.open("w") as file:
        process = subprocess.Popen([sys.executable, PROGRAM, system.home], cwd="/", stdout=file, stderr=file)
        try:
            yield Guest(output)
            assert process.poll() is None, output.read_text()
        finally:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(SOON_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


async def ready(one: Guest) -> None:
    await until(lambda: ["ready"] in one.said, SOON_S)


@asynccontextmanager
async def stock(system: System) -> AsyncIterator[Client]:
    client = await nats.connect(system.url, nkeys_seed=str(system.seed("client")), max_reconnect_attempts=-1)
    try:
        yield client
    finally:
        await client.close()


@asynccontextmanager
async def connected(system: System) -> AsyncIterator[Bus]:
    async with Bus.connect(system.url, user="client", seed=system.seed("client"), name="test") as bus:
        yield bus


async def wonder(system: System, conversation: str, body: bytes = b'{"question": "how many?"}') -> int:
    async with stock(system) as client:
        headers = {"correlation_id": conversation}
        return (await client.jetstream().publish(WONDERED, body, headers=headers, timeout=5)).seq


async def status(system: System, name: str = "operator_backend") -> ActorStatus:
    async with connected(system) as bus:
        return (await bus.request(GetActor(name=name))).status


async def answers(system: System) -> dict[str, dict]:
    """By conversation."""
    async with connected(system) as bus:
        events = await EventLog(bus).read(0, 10_000)
    return {one.headers["correlation_id"]: json.loads(one.body) for one in events if one.subject == ANSWERED}


async def answered(system: System, conversation: str, seconds: float = SOON_S) -> dict:
    end = time.monotonic() + seconds
    while conversation not in (found := await answers(system)):
        assert time.monotonic() < end, (system.home / "guest.log").read_text()
        await asyncio.sleep(0.05)
    return found[conversation]


async def test_it_wakes_an_actor_only_by_asking_it_and_publishes_in_the_same_conversation(system: System) -> None:
    """The first test of its file."""
    with guest(system) as one:
        await ready(one)
        assert ((await status(system)).state, (await status(system)).wakes) == ("dormant", 0)
        await wonder(system, "conversation-1")
        told = await answered(system, "conversation-1")
        assert one.conversations(WONDERED) == ["conversation-1"]
    assert told == {"question": "how many?", "answer": "0 sessions"}
    assert (await status(system)).wakes == 1
    async with connected(system) as bus:
        calls = EventLog(bus, "VX11_CALLS", "vx11.calls.>")

        async def recorded() -> list[str]:
            found = [one for one in await calls.read(0, 1_000) if one.subject == "vx11.calls.operator_backend.list_sessions"]
            return [json.loads(one.body)[call.CORRELATION] for one in found]

        end = time.monotonic() + SOON_S
        while "conversation-1" not in (found := await recorded()):
            assert time.monotonic() < end, found
            await asyncio.sleep(0.05)


async def test_what_was_published_while_it_was_away_it_hears_when_it_is_back(system: System) -> None:
    away = [f"while-away-{n}" for n in range(5)]
    for conversation in away:
        await wonder(system, conversation)
    with guest(system) as one:
        for conversation in away:
            await answered(system, conversation)
        assert one.conversations(WONDERED) == away


async def test_what_it_cannot_do_now_it_does_later(system: System) -> None:
    """A refusal is an answer with an error header, not silence: the guest waits and asks again."""
    async with connected(system) as bus:
        await bus.request(SetGate(name="operator_backend", gate="closed"))
        with guest(system) as one:
            await ready(one)
            while (await status(system)).state != "dormant":
                await asyncio.sleep(0.05)
            await wonder(system, "refused-first")
            await until(lambda: any("off_by_policy" in word for words in one.said for word in words), SOON_S)
            await bus.request(SetGate(name="operator_backend", gate="on_demand"))
            await answered(system, "refused-first")
            assert len(one.conversations(WONDERED)) >= 2


async def test_neither_garbage_nor_the_death_of_the_server_stops_it(system: System) -> None:
    with guest(system) as one:
        await ready(one)
        for body in (b"", b"\xff\x00", b"[]", b"{}"):
            await wonder(system, "no-question", body)
        await wonder(system, "after-garbage")
        await answered(system, "after-garbage")
        assert one.conversations(WONDERED).count("no-question") == 4
        pid = system.pid("nats-server")
        born = started_at(pid)
        os.kill(pid, signal.SIGKILL)
        await until(lambda: not is_same(pid, born), SOON_S)
        while True:
            try:
                await wonder(system, "after-restart")
                break
            except (OSError, nats.errors.Error):
                await asyncio.sleep(0.01)
        begun = time.monotonic()
        await until(lambda: "after-restart" in one.conversations(WONDERED), SOON_S)
        assert time.monotonic() - begun < RESUME_S
        await answered(system, "after-restart")
