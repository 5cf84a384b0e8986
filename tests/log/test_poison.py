"""Must-show 5: poison among good events. The good ones are done, the poison lies in the DLQ with its reason, none is lost."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from random import Random

import pytest

from bus import streams
from bus.client import Bus
from bus.eventlog import EventLog, Stored
from gateway.torture.system import System, scratch
from schemas.dead import DeadRetried, DropDead, ListDead, RetryDead
from schemas.errors import Failure
from tests.log.mill import ACTORS, CONSUMER, FED, hears

LONG = bool(os.environ.get("VX11_LONG_LOG"))
"""10,000 poison messages among 1,000 good ones, with the real pauses between tries; else the same in small."""
GOOD = 1_000 if LONG else 150
KINDS = {
    "no JSON": 4_000 if LONG else 120,
    "wrong form": 4_478 if LONG else 120,
    "huge": 20 if LONG else 4,
    "stone": 1_500 if LONG else 40,
    "bomb": 2 if LONG else 1,
}
REASONS = {"no JSON": "invalid", "wrong form": "invalid", "huge": "invalid", "stone": "failed", "bomb": "crashed"}
RETRY_S = "1,2,4,30" if LONG else "0.5"
TRIES = RETRY_S.count(",") + 2
SETTLED_S = 900.0 if LONG else 60.0
"""A bomb ends its process five times, after which the actor rests longer each time: 1, 2, 4 s and so on."""
LAG_MOST_S = 240.0 if LONG else 20.0
"""From the storing of a good event to its handling: with two bombs the actor rests for 3 min altogether."""
AT_ONCE = 200

pytestmark = pytest.mark.timeout(SETTLED_S + 240)


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    variables = {"VX11_ACTORS_PATH": str(ACTORS), "VX11_IDLE_AFTER": "300", "VX11_RETRY_S": RETRY_S}
    with scratch(tmp_path_factory.mktemp("mill"), services="madre,keeper,host", variables=variables) as system:
        yield system


@asynccontextmanager
async def connected(system: System) -> AsyncIterator[Bus]:
    async with Bus.connect(system.url, user="client", seed=system.seed("client"), name="test") as bus:
        yield bus


def feed(kind: str, n: int, room: int) -> bytes:
    """What is published, with its number somewhere in it."""
    match kind:
        case "no JSON":
            return b'{"n": %d, "kind": grain' % n
        case "wrong form":
            return json.dumps({"n": f"number {n}", "of": n}).encode()
        case "huge":
            return b"%09d" % n + b"\x00" * (room - 9)
        case _:
            return json.dumps({"n": n, "kind": kind}).encode()


def mixed() -> list[str]:
    """The kind of each message, by its number; bombs are not the last, or nobody would be left to be hurt."""
    kinds = ["grain"] * GOOD + [kind for kind, many in KINDS.items() for _ in range(many)]
    Random(11).shuffle(kinds)
    return kinds


async def publish_all(bus: Bus, kinds: list[str]) -> None:
    room = bus.wire.max_payload - streams.HEADER_ROOM_BYTES - 600  # for the headers that publishing adds
    for begin in range(0, len(kinds), AT_ONCE):
        block = list(enumerate(kinds))[begin : begin + AT_ONCE]
        await asyncio.gather(*(bus.publish_raw(FED, feed(kind, n, room)) for n, kind in block))


async def settled(bus: Bus) -> None:
    """Wait until the consumer has nothing left, neither to give nor to be answered for."""
    end = time.monotonic() + SETTLED_S
    while (left := await streams.backlog(bus.api, streams.EVENTS, CONSUMER)) != (0, 0):
        assert time.monotonic() < end, f"after {SETTLED_S:g} s there are left: {left}"
        await asyncio.sleep(0.2)


def ground(system: System) -> dict[int, float]:
    """Number to when it was handled."""
    lines = (system.home / "mill.jsonl").read_text().splitlines()
    return {int(one["n"]): float(one["at"]) for one in map(json.loads, lines)}


async def letters(bus: Bus) -> list[Stored]:
    log = EventLog(bus, streams.DLQ, "vx11.dlq.>")
    return await log.read(0, 1_000_000)


def number_of(body: bytes) -> int:
    text = body[:40].decode()
    return int("".join(filter(str.isdigit, text.partition(",")[0])))


@pytest.fixture(scope="module")
def kinds() -> list[str]:
    return mixed()


async def test_good_events_are_done_and_poison_is_buried_with_its_reason(system: System, kinds: list[str]) -> None:
    async with connected(system) as bus:
        await hears(bus)
        begun, began = time.monotonic(), time.time()
        await publish_all(bus, kinds)
        published = time.monotonic() - begun
        await settled(bus)
        took = time.monotonic() - begun
        found = await letters(bus)
        stored = {number_of(one.body): one.at for one in await EventLog(bus).read(0, 1_000_000) if one.subject == FED}
    good = {n for n, kind in enumerate(kinds) if kind == "grain"}
    done = ground(system)
    assert set(done) == good
    buried = {number_of(one.body): one for one in found}
    assert set(buried) == set(range(len(kinds))) - good, "none is lost, and none is there that was not sent"
    assert len(found) == len(buried), "none is there twice"
    wrong = {n: one.headers for n, one in buried.items() if one.headers["vx11-dlq-reason"] != REASONS[kinds[n]]}
    assert wrong == {}
    for n, one in buried.items():
        history = json.loads(one.headers["vx11-dlq-history"])
        assert len(history) == {"stone": TRIES, "bomb": 0}.get(kinds[n], 1), kinds[n]
    bangs = Counter((system.home / "mill.bangs").read_text().split())
    assert set(bangs.values()) == {TRIES}
    lag = max(done[n] - stored[n] for n in good)
    tell(f"{len(kinds)} events: stored in {published:.1f} s, the last good one handled after {max(done.values()) - began:.1f} s")
    tell(f"all settled after {took:.1f} s; a good one was handled {lag:.1f} s after it was stored at the latest")
    assert lag < LAG_MOST_S


def tell(line: str) -> None:
    """A figure, to be seen with `pytest -s`."""
    sys.stdout.write(f"\n{line}")


async def retried(bus: Bus, sequence: int) -> DeadRetried:
    while True:
        try:
            return await bus.request(RetryDead(sequence=sequence), timeout=2.0)
        except Failure as failure:
            if failure.code not in ("unavailable", "timeout"):  # the keeper was killed, with this request in hand or without
                raise
            await asyncio.sleep(0.1)


async def test_once_the_handler_is_mended_what_is_retried_is_done(system: System, kinds: list[str]) -> None:
    """Also what blew it up. What no mending can help dies again, and lies there with both its lives."""
    curable = {n for n, kind in enumerate(kinds) if kind in ("stone", "bomb")}
    (system.home / "mill.mended").touch()
    async with connected(system) as bus:
        before = await letters(bus)
        chosen = [one for one in before if number_of(one.body) in curable]
        hopeless = next(one for one in before if kinds[number_of(one.body)] == "wrong form")
        killed = system.pid("keeper")
        for place, one in enumerate((*chosen, hopeless)):
            if place == len(chosen) // 2:
                os.kill(killed, 9)  # in the middle of it
            await retried(bus, one.sequence)
        await settled(bus)
        after = await letters(bus)
        facts = [one for one in await EventLog(bus).read(0, 1_000_000) if one.subject == "vx11.events.keeper.dead_retried"]
    assert curable <= set(ground(system))
    gone = {one.sequence for one in (*chosen, hopeless)}
    assert {one.sequence for one in before} - {one.sequence for one in after} == gone
    [again] = [one for one in after if one.sequence > before[-1].sequence]
    assert number_of(again.body) == number_of(hopeless.body)
    assert len(json.loads(again.headers["vx11-dlq-history"])) == 2
    assert {json.loads(one.body)["sequence"] for one in facts} == gone


async def test_what_is_dropped_is_gone_and_the_rest_is_listed(system: System) -> None:
    async with connected(system) as bus:
        first = (await bus.request(ListDead(limit=1))).letters[0]
        await bus.request(DropDead(sequence=first.sequence, reason="poison"))
        rest = await bus.request(ListDead(limit=1_000))
        assert first.sequence not in [one.sequence for one in rest.letters]
        assert rest.total == sum(KINDS.values()) - KINDS["stone"] - KINDS["bomb"] - 1
