"""Playing stored events again: as fast as it goes against a bare client's loop, at their own pace, and the right ones."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import nats
from nats.js.api import ConsumerConfig

from bus.nats_server import NatsServer, embedded
from bus.replay import Replay
from bus.streams import EVENTS
from schemas.replay import ENDED, StartReplay
from tests.bench.numbers import Rounds, percentile
from tests.bench.report import Claim, Figure
from tests.replay.theatre import Theatre, connected, fill, make_events, plain_scan, theatre

OURS, BARE, AGAIN = "vx11 replay", "nats-py, fetch(500)", "the same again"
SPEEDS = (1.0, 10.0)
SUBJECTS = ("vx11.events.shop.sold", "vx11.events.shop.returned", "vx11.events.mill.ground", "vx11.events.power.slept.mill")
CONVERSATIONS = 500
GAP_S = (0.002, 0.038)
"""Between two events that are stored to be played at their pace."""
ABOUT = """Playing stored events again: as fast as it goes against a bare client's loop, at their own pace, and the right ones.
max: everything is read and published to other subjects; nats-py pulls with fetch(500) from a consumer without acks and
publishes body and headers as they came, vx11 also marks each event, looks for gaps and has everything confirmed. pace:
how late each event was heard, measured from the first one; beside it how late a timer of asyncio alone is. wrong:
events that a stock client's plain scan has and the replay not, or the other way round, by sequence, time, filter,
actor and conversation together."""


@dataclass(frozen=True)
class Size:
    rounds: int = 5
    events: int = 100_000
    paced: int = 500


def measure(home: Path, size: Size) -> Figure:
    """Raises Failure when the server does not start."""
    rounds = Rounds()
    home.mkdir(parents=True)
    with embedded(home) as server:
        asyncio.run(_measured(server, size, rounds))
    about = f"{ABOUT}\n{size.events:,} events; {size.paced:,} at their own pace."
    return Figure("replay", about, rounds, claims(rounds))


def claims(rounds: Rounds) -> list[Claim]:
    noise = rounds.spread("events_s", BARE, AGAIN)
    found = [Claim("as fast as it goes", rounds.ratio("events_s", OURS, BARE), noise, least=1.5, gross=0.8)]
    for speed in SPEEDS:
        late = percentile(rounds.values[_pace(speed), "p99_ms"], 0.5)
        found.append(Claim(f"late at {_pace(speed)}, 99 of 100", late, most=20.0, gross=500.0, unit="ms"))
    return [*found, Claim("wrong events", rounds.median("selections", "wrong"), most=0.0, gross=0.5)]


async def _measured(server: NatsServer, size: Size, rounds: Rounds) -> None:
    async with connected(server, "madre") as boss:
        await make_events(boss)
        await fill(boss, _sales(size.events))
    for _ in range(size.rounds):  # nobody listens yet
        works = [(BARE, _bare), (OURS, _ours), (AGAIN, _bare)]
        for config, work in random.sample(works, len(works)):
            began, spent = time.perf_counter(), time.process_time()
            await work(server, size.events)
            took, spent = time.perf_counter() - began, time.process_time() - spent
            rounds.add(config, events_s=size.events / took, cpu_us=1e6 * spent / size.events)
    async with theatre(server) as stage:
        rounds.add("selections", wrong=float(await _wrong(stage)))
        await _paced(stage, size, rounds)


def _sales(number: int) -> list[tuple[str, bytes, dict[str, str]]]:
    dice = random.Random(1)
    return [
        (
            dice.choice(SUBJECTS),
            json.dumps({"n": n, "text": "x" * dice.randrange(300)}).encode(),
            {"correlation_id": f"conversation-{dice.randrange(CONVERSATIONS)}", "Nats-Msg-Id": f"sale-{n}"},
        )
        for n in range(number)
    ]


async def _bare(server: NatsServer, number: int) -> None:
    client = await nats.connect(server.url, nkeys_seed_str=server.seed_file("client").read_text().strip())
    try:
        config = ConsumerConfig(ack_policy="none", inactive_threshold=60)
        pulled = await client.jetstream().pull_subscribe("", stream=EVENTS, config=config)
        left = number
        while left:
            for msg in await pulled.fetch(min(500, left)):
                await client.publish(f"vx11.sandbox.bare.{msg.subject}", msg.data, headers=msg.headers)
                left -= 1
        await client.flush()
    finally:
        await client.close()


async def _ours(server: NatsServer, number: int) -> None:
    async with connected(server, "client") as bus:
        summary = await Replay(bus, StartReplay(pace="max", last=number)).run()
    if (summary.state, summary.events) != (ENDED[0], number):
        raise RuntimeError(f"the replay went wrong: {summary}")


async def _paced(stage: Theatre, size: Size, rounds: Rounds) -> None:
    dice = random.Random(2)
    first = 0
    for subject, body, _ in _sales(size.paced):  # under ids of their own: these have been stored already
        (sequence,) = await fill(stage.boss, [(subject, body, {})])
        first = first or sequence
        await asyncio.sleep(dice.uniform(*GAP_S))
    for speed in SPEEDS:
        for _ in range(size.rounds):
            stage.heard.clear()
            await stage.play(pace=speed, first=first)
            came = [heard.at for heard in stage.heard]
            stored = [datetime.fromisoformat(heard.headers["vx11-original-time"]).timestamp() for heard in stage.heard]
            for config, times in ((_pace(speed), came), (f"{_pace(speed)}, timers", await _timers(stored, speed))):
                late = [1000 * abs((c - times[0]) - (s - stored[0]) / speed) for c, s in zip(times, stored, strict=True)]
                rounds.add(config, p50_ms=percentile(late, 0.5), p99_ms=percentile(late, 0.99))


async def _timers(stored: list[float], speed: float) -> list[float]:
    """When asyncio alone would have been there: what is later than that is ours, the rest the machine's."""
    began, found = time.monotonic(), []
    for moment in stored:
        await asyncio.sleep(max(0.0, began + (moment - stored[0]) / speed - time.monotonic()))
        found.append(time.monotonic())
    return found


def _pace(speed: float) -> str:
    return f"pace {speed:g}"


async def _wrong(stage: Theatre) -> int:
    """Events by which the selections differ from a plain scan."""
    scan = await plain_scan(stage.server)
    wrong = 0
    for wanted, holds in _selections(scan):
        stage.heard.clear()
        await stage.play(pace="max", **wanted)
        expected = [event["sequence"] for event in scan if holds(event)]
        wrong += len(set(expected) ^ set(stage.sequences)) + (stage.sequences != sorted(stage.sequences))
        wrong += abs(len(stage.sequences) - len(expected))
    return wrong


def _selections(scan: list[dict[str, Any]]) -> list[tuple[dict[str, Any], Callable[[dict[str, Any]], bool]]]:
    times = [event["at"] for event in scan]
    low, high = (_between(times, len(times) * part // 10) for part in (3, 7))
    first, last = len(scan) // 5, 4 * len(scan) // 5
    return [
        ({"first": first, "last": last}, lambda e: first <= e["sequence"] <= last),
        ({"since": _moment(low), "until": _moment(high)}, lambda e: low <= e["at"] < high),
        ({"filters": ["vx11.events.shop.>"]}, lambda e: e["subject"].startswith("vx11.events.shop.")),
        ({"actor": "mill"}, lambda e: e["subject"] in SUBJECTS[2:]),
        ({"correlation_id": "conversation-9"}, lambda e: e["headers"].get("correlation_id") == "conversation-9"),
    ]


def _between(times: list[float], at: int) -> float:
    """A moment that no rounding can move to the other side of an event."""
    return next((a + b) / 2 for a, b in zip(times[at:], times[at + 1 :], strict=False) if b - a > 1e-5)


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat()
