"""Durable events under load, against the best publisher that stores them message by message."""

from __future__ import annotations

import asyncio
import json
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bus import streams
from bus.client import Bus
from bus.nats_server import NatsServer, embedded
from bus.streams import ensure_stream, stream_configs
from tests.bench.numbers import Rounds
from tests.bench.process import program
from tests.bench.report import Claim, Figure

OURS, AGAIN, FEWER, REFUSED = (
    "vx11, 256 publishers",
    "the same again",
    "vx11, 64 publishers",
    "vx11, 256, every 100th batch refused",
)
BEST, LONELY, LONELY_PY = "the best of nats-py", "vx11, 1 publisher", "nats-py, 1 publisher"
BY_MESSAGE: dict[str, dict[str, Any]] = {
    f"nats-py {by}, {number} in flight": {"by": by, "in_flight": number}
    for by in ("publish", "publish_async")
    for number in (64, 256)
} | {"nats-py publish, 128 in flight": {"by": "publish", "in_flight": 128}}
CONFIGS: dict[str, dict[str, Any]] = {
    OURS: {"by": "bus", "in_flight": 256},
    AGAIN: {"by": "bus", "in_flight": 256},
    REFUSED: {"by": "bus", "in_flight": 256, "stored": 100},
    FEWER: {"by": "bus", "in_flight": 64},
    **BY_MESSAGE,
    LONELY: {"by": "bus", "in_flight": 1},
    LONELY_PY: {"by": "publish", "in_flight": 1},
}
QUICK = (OURS, AGAIN, REFUSED, "nats-py publish, 128 in flight")
PATIENCE_S = 90.0
ABOUT = """Durable events under load, against the best publisher that stores them message by message.
One nats-server with `sync_interval: always` and the stream VX11_EVENTS as VX11 makes it; each publisher a process of its own,
one connection, uvloop; events of 306 bytes, each with an id of its own, counted when they are acknowledged. vx11:
`bus.publish` with all its headers. The best of nats-py is the best of the round. us: processor time of the publisher for one
event. repeated: ids among them that the stream had already; each has its batch refused. p50, p99: from the call to the
acknowledgement (for publish_async to the place in its window)."""


@dataclass(frozen=True)
class Size:
    seconds: float = 2.0
    rounds: int = 3
    configs: tuple[str, ...] = tuple(CONFIGS)


def measure(home: Path, size: Size) -> Figure:
    """Raises RuntimeError when a publisher fails."""
    rounds = Rounds()
    with embedded(home) as server:
        for number in range(size.rounds):
            for name in random.sample(size.configs, len(size.configs)):
                asyncio.run(_emptied(server))
                rounds.add(name, **_published(server, f"{number}-{name}", size.seconds, CONFIGS[name]))
            best = max(BY_MESSAGE.keys() & set(size.configs), key=lambda name: rounds.values[name, "per_s"][-1])
            rounds.add(BEST, per_s=rounds.values[best, "per_s"][-1])
    return Figure("durable", ABOUT, rounds, claims(rounds))


def claims(rounds: Rounds) -> list[Claim]:
    noise = rounds.spread("per_s", OURS, AGAIN)
    asked = [
        Claim("events a second", rounds.ratio("per_s", OURS, BEST), noise, least=4.0, gross=0.4),
        Claim("events a second, every 100th batch refused", rounds.ratio("per_s", REFUSED, BEST), noise, least=4.0, gross=0.4),
    ]
    if not rounds.values.get((FEWER, "per_s")):
        return asked
    return [
        *asked,
        Claim("events a second, 64 publishers", rounds.ratio("per_s", FEWER, BEST), noise),
        Claim("p50 of a lonely publisher", rounds.ratio("p50_ms", LONELY, LONELY_PY), None, gross=3.0),
    ]


def _published(server: NatsServer, name: str, seconds: float, config: dict[str, Any]) -> dict[str, float]:
    told = {"url": server.url, "seed": str(server.seed_file("client")), "name": name, "seconds": seconds, **config}
    with program("publishing", json.dumps(told)) as one:
        got = json.loads(one.result(PATIENCE_S))
    found = {"per_s": got["events"] / got["seconds"], "us": got["us"], "p50_ms": got["p50_ms"], "p99_ms": got["p99_ms"]}
    if got.get("batches"):
        found |= {"batch": got["events"] / got["batches"], "repeated": got["repeated"]}
    return found


async def _emptied(server: NatsServer) -> None:
    async with Bus.connect(server.url, user="madre", seed=server.seed_file("madre"), name="bench") as boss:
        config = next(c for c in stream_configs(boss.wire.max_payload) if c["name"] == streams.EVENTS)
        await ensure_stream(boss.api, config)
        await boss.api(f"$JS.API.STREAM.PURGE.{streams.EVENTS}")
