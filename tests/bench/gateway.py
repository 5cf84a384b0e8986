"""Through the gateway to an awake actor, everything on, against a bridge that only passes on."""

from __future__ import annotations

import asyncio
import json
import random
import statistics
import time
import urllib.request
from collections import defaultdict
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gateway.torture.system import System, scratch
from tests.bench.numbers import Rounds, percentile
from tests.bench.process import begun, cpu_s, program
from tests.bench.report import Claim, Figure

OURS, BRIDGE, AGAIN, FAST = "vx11", "aiohttp + nats-py", "the same again", "aiohttp + nats-py, uvloop"
HTTPX, CLIENT = "FastAPI + httpx", "FastAPI + aiohttp client"
CONNECTIONS = 64
WARM_S = 0.3
LOAD_S = 120.0
"""No slice takes so long."""
SERVICES = "madre,host,tentaculo_link"
ABOUT = """Through the gateway to an awake actor, everything on, against a bridge that only passes on.
POST /call/echo/echo, 306 bytes, 64 kept connections, to the same awake actor behind the same nats-server. vx11:
token, correlation ids, trace context, call records, metrics, no rate limit (VX11_HTTP_RATE=0). The bridge: 40 lines,
user `client`, asyncio's own loop. FastAPI: to a FastAPI service over HTTP, no bus, both on uvloop. per_s, us
(processor time of the door for one request, in microseconds), us_all (of what is behind it, too), p50, p99: at
saturation, closed loop. half_*: at half of what vx11 did a second, open loop; a time counts from when the request was
due. lag: how late it was sent. A round has slices that alternate; its percentiles are medians over them."""


@dataclass(frozen=True)
class Door:
    """`front`: the process that passes on; `others`: what works behind it."""

    port: int
    front: int
    others: tuple[int, ...]


@dataclass
class Slices:
    """What the slices of one round have come to, for one door. `front_s`, `behind_s`: processor time."""

    answered: int = 0
    seconds: float = 0.0
    front_s: float = 0.0
    behind_s: float = 0.0
    times: list[list[float]] = field(default_factory=list)
    lags: list[list[float]] = field(default_factory=list)

    def take(self, door: Door, token: str, *, settle_s: float = 0.0, **told: Any) -> None:
        """`settle_s`: what is done in that time after the last answer counts, too."""
        front, behind = cpu_s([door.front]), cpu_s(door.others)
        got = _load(door, token, **told)
        time.sleep(settle_s)
        self.front_s += cpu_s([door.front]) - front
        self.behind_s += cpu_s(door.others) - behind
        self.answered += got["answered"]
        self.seconds += got["seconds"]
        self.times.append(got["times_ms"])
        self.lags.append(got["lags_ms"])

    def saturated(self) -> dict[str, float]:
        each = 1e6 / self.answered
        told = {"per_s": self.answered / self.seconds, "us": self.front_s * each, "us_all": (self.front_s + self.behind_s) * each}
        return {**told, "p50_ms": _typical(self.times, 0.5), "p99_ms": _typical(self.times, 0.99)}

    def half(self) -> dict[str, float]:
        told = {"half_p50_ms": _typical(self.times, 0.5), "half_p99_ms": _typical(self.times, 0.99)}
        return {**told, "lag_p99_ms": _typical(self.lags, 0.99)}


@dataclass(frozen=True)
class Size:
    seconds: float = 3.0
    samples: int = 20_000
    slices: int = 5
    rounds: int = 3
    frameworks: bool = True
    """FastAPI beside the bridge: it is there for the reader only, and has to be installed."""


def measure(home: Path, size: Size) -> Figure:
    """Raises Failure or RuntimeError when something does not start, AssertionError when a request failed."""
    rounds = Rounds()
    with ExitStack() as stack:
        system = stack.enter_context(scratch(home, services=SERVICES))
        doors = _doors(stack, system, frameworks=size.frameworks)
        for door in doors.values():
            _load(door, system.token, seconds=WARM_S)
        for _ in range(size.rounds):
            _round(rounds, doors, system.token, size)
    return Figure("gateway", ABOUT, rounds, claims(rounds))


def _round(rounds: Rounds, doors: dict[str, Door], token: str, size: Size) -> None:
    """In slices that alternate, so that whatever else the machine does strikes all alike."""
    got: dict[str, Slices] = defaultdict(Slices)
    for _ in range(size.slices):
        for name in _shuffled(doors):
            got[name].take(doors[name], token, seconds=size.seconds / size.slices)
    for name, slices in got.items():
        rounds.add(name, **slices.saturated())
    rate = rounds.values[OURS, "per_s"][-1] / 2
    got = defaultdict(Slices)
    for _ in range(size.slices):
        for name in _shuffled((OURS, BRIDGE, AGAIN, FAST)):
            got[name].take(doors[name], token, rate=rate, number=size.samples // size.slices)
    for name, slices in got.items():
        rounds.add(name, **slices.half())


def claims(rounds: Rounds) -> list[Claim]:
    noise = {quantity: rounds.spread(quantity, BRIDGE, AGAIN) for quantity in ("per_s", "us", "us_all", "half_p99_ms")}
    return [
        Claim("answers a second", rounds.ratio("per_s", OURS, BRIDGE), noise["per_s"], least=0.75, gross=0.3),
        Claim("p99 at half load", rounds.ratio("half_p99_ms", OURS, BRIDGE), noise["half_p99_ms"], most=1.5),
        Claim("answers a second, against uvloop", rounds.ratio("per_s", OURS, FAST), noise["per_s"]),
        Claim("p99 at half load, against uvloop", rounds.ratio("half_p99_ms", OURS, FAST), noise["half_p99_ms"]),
        Claim("processor time at the door", rounds.ratio("us", OURS, BRIDGE), noise["us"], gross=4.0),
        Claim("processor time of all behind it, too", rounds.ratio("us_all", OURS, BRIDGE), noise["us_all"]),
    ]


def _doors(stack: ExitStack, system: System, *, frameworks: bool) -> dict[str, Door]:
    asyncio.run(begun(system))
    port = int(system.http_url.rpartition(":")[2])
    behind = (_actor(port, system.token), system.pid("nats-server"))
    doors = {OURS: Door(port, system.pid("tentaculo_link"), behind)}
    for name, *words in ((BRIDGE,), (AGAIN,), (FAST, "uvloop")):
        bridge = stack.enter_context(program("bridge", system.url, system.seed("client"), *words))
        doors[name] = Door(int(bridge.ready()), bridge.pid, behind)
    return {**doors, **_framework_doors(stack)} if frameworks else doors


def _framework_doors(stack: ExitStack) -> dict[str, Door]:
    service = stack.enter_context(program("fastapi_service"))
    port, doors = service.ready(), {}
    for name, client in ((HTTPX, "httpx"), (CLIENT, "aiohttp")):
        front = stack.enter_context(program("fastapi_door", client, port))
        doors[name] = Door(int(front.ready()), front.pid, (service.pid,))
    return doors


def _actor(port: int, token: str) -> int:
    """Wake it; its process id."""
    headers = {"X-VX11-Token": token, "Content-Type": "application/json"}
    request = urllib.request.Request(f"http://127.0.0.1:{port}/call/echo/echo", b"{}", headers)
    with urllib.request.urlopen(request, timeout=30) as answer:
        return int(json.load(answer)["pid"])


def _load(door: Door, token: str, **told: Any) -> dict[str, Any]:
    order = {"port": door.port, "token": token, "connections": CONNECTIONS, **told}
    with program("load", json.dumps(order)) as load:
        result: dict[str, Any] = json.loads(load.result(LOAD_S))
    assert result["failed"] == 0, f"{result['failed']:g} of the requests failed"
    return result


def _typical(slices: Sequence[Sequence[float]], part: float) -> float:
    """The median over the slices of their percentile: one in which the machine did something else does not decide."""
    return statistics.median(percentile(one, part) for one in slices)


def _shuffled(names: Iterable[str]) -> list[str]:
    return random.sample(some := list(names), len(some))
