"""The gateway is killed with its hands full, and has fewer descriptors than callers (F2, F18)."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import aiohttp
import psutil
import pytest

from gateway.torture.system import GATEWAY
from tests.faults.load import Asked, effects
from tests.faults.scene import AGAIN_S, Scene, scene, seeds, until

REQUESTS = 64
STREAMS = 16
EVENTS = 20
WORK_S = 1.0
RESTART_S = 10.0
"""Ceiling for a busy machine; a quiet one takes half a second."""
CALLERS = 500
DESCRIPTORS = 128
CUT = "connection lost"

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    with scene(tmp_path_factory.mktemp("faults") / "home", services=f"madre,host,{GATEWAY}") as made:
        asyncio.run(answering(made))
        yield made


@asynccontextmanager
async def door(home: Scene) -> AsyncIterator[aiohttp.ClientSession]:
    connector, headers = aiohttp.TCPConnector(limit=0), {"X-VX11-Token": home.system.token}
    async with aiohttp.ClientSession(home.system.http_url, connector=connector, headers=headers) as http:
        yield http


async def answering(home: Scene) -> float:
    """Wait until a call goes through the gateway to an actor; how long that took."""
    begun = time.monotonic()
    async with door(home) as http:
        while (await write(http, -1, 0.0, verb="rewrite")) != "ok":
            assert time.monotonic() - begun < AGAIN_S, "the gateway does not answer"
            await asyncio.sleep(0.02)
    return time.monotonic() - begun


async def write(http: aiohttp.ClientSession, n: int, seconds: float = WORK_S, *, verb: str = "write") -> str:
    """`ok`, the code of the error, or CUT. The same number is the same request, also when it is asked again."""
    headers = {"Idempotency-Key": f"faults-{os.getpid()}-{n}"} if n >= 0 else {}
    try:
        async with http.post(f"/call/ledger/{verb}", json={"n": n, "seconds": seconds}, headers=headers) as answer:
            document = await answer.json()
            if answer.status == 200:
                assert document["n"] == n, "a foreign answer"
                return "ok"
            assert answer.status < 500 or document["error"] != "internal", document
            return str(document["error"])
    except aiohttp.ClientError:
        return CUT


async def follow(http: aiohttp.ClientSession, open_: list[int]) -> str:
    """Read a stream of events to its end. `open_`: one entry for each that is open."""
    try:
        async with http.get("/operator/api/events", headers={"Accept": "text/event-stream"}) as answer:
            open_.append(answer.status)
            async for _ in answer.content:
                continue
    except aiohttp.ClientError:
        return CUT
    return "ended"


@pytest.mark.parametrize("seed", seeds())
async def test_who_asks_again_with_the_same_key_after_the_gateway_died_gets_the_answer_of_the_first(
    home: Scene, seed: int
) -> None:
    """Its clients see a lost connection and never a wrong answer; what it had sent on is done once, what was stored stays."""
    first = next(home.firsts)
    numbers, notes = range(first, first + REQUESTS), range(first + REQUESTS, first + REQUESTS + EVENTS)
    streams: list[int] = []
    async with door(home) as http:
        following = [asyncio.create_task(follow(http, streams)) for _ in range(STREAMS)]
        for n in notes:
            async with http.post("/events/ledger/noted", json={"n": n}) as stored:
                assert stored.status == 200, await stored.text()
            home.asked.append(Asked(n, "event", "ok"))
        asking = [asyncio.create_task(write(http, n)) for n in numbers]
        await until(lambda: len(streams) == STREAMS, "the streams are open")
        await asyncio.sleep(random.Random(seed).uniform(0.0, WORK_S))  # how far they have come is the test
        os.kill(home.system.pid(GATEWAY), signal.SIGKILL)
        begun = time.monotonic()
        assert set(await asyncio.gather(*asking)) <= {"ok", CUT}
        assert set(await asyncio.gather(*following)) == {CUT}
    back = await answering(home)
    assert time.monotonic() - begun < RESTART_S
    home.tell(f"through the gateway again after {back:.2f} s")
    async with door(home) as http:
        again = await asyncio.gather(*(write(http, n) for n in numbers))
    assert Counter(again) == {"ok": REQUESTS}
    assert Counter(e.n for e in effects(home.system) if e.n in numbers) == dict.fromkeys(numbers, 1)


async def test_told_to_end_it_answers_what_is_under_way_and_ends_its_streams(home: Scene) -> None:
    """F16: nobody sees a lost connection."""
    first = next(home.firsts)
    streams: list[int] = []
    async with door(home) as http:
        following = [asyncio.create_task(follow(http, streams)) for _ in range(STREAMS)]
        asking = [asyncio.create_task(write(http, first + n)) for n in range(REQUESTS)]
        await until(lambda: len(streams) == STREAMS, "the streams are open")
        await write(http, -1, 0.0, verb="rewrite")  # it has taken what came before
        os.kill(home.system.pid(GATEWAY), signal.SIGTERM)
        assert set(await asyncio.gather(*asking)) == {"ok"}
        assert set(await asyncio.gather(*following)) == {"ended"}
    await until(lambda: f"{GATEWAY} ended with 0" in (home.system.home / "supervisor.log").read_text(), "it has ended cleanly")
    await answering(home)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux sets the limits of another process")
async def test_with_more_callers_than_descriptors_it_turns_some_away_and_recovers(home: Scene) -> None:
    """The others are served; the connection to the bus, which is older than they are, stays."""
    gateway = psutil.Process(home.system.pid(GATEWAY))
    before = gateway.rlimit(psutil.RLIMIT_NOFILE)
    gateway.rlimit(psutil.RLIMIT_NOFILE, (DESCRIPTORS, before[1]))
    try:
        async with door(home) as http:
            calls = (write(http, -1, 0.2, verb="rewrite") for _ in range(CALLERS))
            async with asyncio.timeout(AGAIN_S):
                outcomes = Counter(await asyncio.gather(*calls))
        home.tell(f"{CALLERS} callers, {DESCRIPTORS} descriptors: {dict(outcomes)}")
        assert set(outcomes) == {"ok", CUT} or set(outcomes) == {"ok", CUT, "busy"}, outcomes
        await answering(home)
        assert home.system.pid(GATEWAY) == gateway.pid
    finally:
        if gateway.is_running():
            gateway.rlimit(psutil.RLIMIT_NOFILE, before)
