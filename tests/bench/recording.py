"""What recording the calls costs: the same requests to an actor whose calls are recorded and to one whose calls are not."""

from __future__ import annotations

import asyncio
import json
import random
import time
import urllib.request
from collections import defaultdict
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from bus import streams
from bus.client import Bus
from bus.records import Records
from gateway.torture.system import ACTORS, System, copies, scratch
from tests.bench.gateway import WARM_S, Door, Slices
from tests.bench.numbers import Rounds
from tests.bench.process import begun
from tests.bench.report import Claim, Figure

RECORDED, FULL, SILENT, AGAIN = "recorded", "recorded with bodies", "not recorded", "not recorded, again"
SERVICES = "madre,keeper,host,tentaculo_link"
NAMES = ("echo", "echo2", "echo3", "echo4")
SILENCE = """

from bus.recorder import Recorder


class Silent:
    pass


@actor.resource
async def silent() -> AsyncIterator[Silent]:
    Recorder.record = lambda *_, **__: None
    yield Silent()
"""
"""VX11 has no switch for it. In a resource, which that actor alone opens: its module is imported by every spare process."""
COUNTED_S = 30.0
STILL_S = 0.5
"""Longer than a record waits in its actor."""
PING_S = 5.0
ABOUT = """What recording the calls costs.
POST /call/.../echo through the gateway, 306 bytes, 64 kept connections; four actors of the same code in one system with all
its processes, one of which throws its records away. us, us_all: processor time for one request, of the door and of all
processes, the keeper, which indexes the records, included. p50, p99: at saturation, closed loop; half_*: at half of what was
answered a second with recording, open loop. unaccounted: answers at saturation that are neither in VX11_CALLS nor counted as
shed by the actor."""


@dataclass(frozen=True)
class Size:
    seconds: float = 3.0
    samples: int = 20_000
    slices: int = 5
    rounds: int = 3
    settle_s: float = 1.0
    """After each slice: what the recorder still has and the keeper has not read is not another's cost."""


def measure(home: Path, size: Size) -> Figure:
    """Raises Failure or RuntimeError when something does not start, AssertionError when a request failed."""
    rounds = Rounds()
    variables = {"VX11_ACTORS_PATH": str(_actors(home.parent / "actors")), "VX11_RECORD_ECHO2": "full"}
    with ExitStack() as stack:
        system = stack.enter_context(scratch(home, services=SERVICES, variables=variables))
        asyncio.run(begun(system))
        doors = {name: _door(system, actor) for name, actor in _named().items()}
        for name, door in doors.items():
            Slices().take(door, system.token, actor=_named()[name], seconds=WARM_S)
        for _ in range(size.rounds):
            _round(rounds, doors, system, size)
    return Figure("recording", ABOUT, rounds, claims(rounds))


def claims(rounds: Rounds) -> list[Claim]:
    noise = {quantity: rounds.spread(quantity, SILENT, AGAIN) for quantity in ("us_all", "half_p99_ms", "per_s")}
    return [
        Claim("p99 at half load", rounds.ratio("half_p99_ms", RECORDED, SILENT), noise["half_p99_ms"], most=1.25, gross=4.0),
        Claim("processor time of all", rounds.ratio("us_all", RECORDED, SILENT), noise["us_all"], gross=3.0),
        Claim("answers a second", rounds.ratio("per_s", RECORDED, SILENT), noise["per_s"]),
        Claim("p99 at half load, with bodies", rounds.ratio("half_p99_ms", FULL, SILENT), noise["half_p99_ms"]),
        Claim("answers unaccounted for", max(rounds.values[RECORDED, "unaccounted"]), most=0.0, gross=0.5),
    ]


def _named() -> dict[str, str]:
    return dict(zip((RECORDED, FULL, SILENT, AGAIN), NAMES, strict=True))


def _actors(folder: Path) -> Path:
    """`echo` and three copies of it, of which two throw their records away."""
    (folder / "echo").mkdir(parents=True)
    for file in (ACTORS / "echo").glob("*.py"):
        (folder / "echo" / file.name).write_text(file.read_text())
    for name in copies(folder, len(NAMES))[2:]:
        with (folder / name / "actor.py").open("a") as code:
            code.write(SILENCE)
    return folder


def _door(system: System, actor: str) -> Door:
    """The actor, awake, and everything that works for its answers."""
    port = int(system.http_url.rpartition(":")[2])
    headers = {"X-VX11-Token": system.token, "Content-Type": "application/json"}
    request = urllib.request.Request(f"http://127.0.0.1:{port}/call/{actor}/echo", b"{}", headers)
    with urllib.request.urlopen(request, timeout=30) as answer:
        pid = int(json.load(answer)["pid"])
    others = (pid, *(system.pid(name) for name in ("nats-server", "keeper", "madre")))
    return Door(port, system.pid("tentaculo_link"), others)


def _round(rounds: Rounds, doors: dict[str, Door], system: System, size: Size) -> None:
    """In slices that alternate, so that whatever else the machine does strikes all alike."""
    before = asyncio.run(_counted(system, anew=True))
    got = _sliced(doors, system, size, seconds=size.seconds / size.slices)
    for name, slices in got.items():
        rounds.add(name, **slices.saturated())
    after = asyncio.run(_counted(system, anew=False))
    answered = got[RECORDED].answered
    recorded, shed = (now - then for now, then in zip(after, before, strict=True))
    rounds.add(RECORDED, answered=answered, recorded=recorded, shed=shed, unaccounted=abs(answered - recorded - shed))
    rate = rounds.values[RECORDED, "per_s"][-1] / 2
    for name, slices in _sliced(doors, system, size, rate=rate, number=size.samples // size.slices).items():
        rounds.add(name, **slices.half())


def _sliced(doors: dict[str, Door], system: System, size: Size, **told: float) -> dict[str, Slices]:
    got: dict[str, Slices] = defaultdict(Slices)
    for _ in range(size.slices):
        for name in _shuffled(doors):
            got[name].take(doors[name], system.token, actor=_named()[name], settle_s=size.settle_s, **told)
    return got


async def _recorded(bus: Bus) -> tuple[int, int]:
    """Call records of the recorded actor in the stream, and those that it shed, once neither changes any more."""
    end, before = time.monotonic() + COUNTED_S, (-1, -1)
    while time.monotonic() < end:
        counts = await _stored(bus), await _shed(bus)
        if counts == before:
            return counts
        before = counts
        await asyncio.sleep(STILL_S)
    raise TimeoutError(f"the call records did not come to rest in {COUNTED_S:g} s")


async def _stored(bus: Bus) -> int:
    asked = json.dumps({"subjects_filter": f"vx11.calls.{NAMES[0]}.>"}).encode()
    state = (await bus.api(f"$JS.API.STREAM.INFO.{streams.CALLS}", asked))["state"]
    return sum((state.get("subjects") or {}).values())


async def _shed(bus: Bus) -> int:
    record, _ = await Records(bus).get(NAMES[0])
    assert record is not None
    beat = await bus.raw(f"vx11.inst.{record.actor}.{record.owner}._ping", timeout=PING_S)
    return int(json.loads(beat.data)["shed"])


async def _counted(system: System, *, anew: bool) -> tuple[int, int]:
    """`anew`: the stream is emptied before, so that it forgets nothing by itself while it is counted."""
    async with Bus.connect(system.url, user="madre", seed=system.seed("madre"), name="bench") as bus:
        if anew:
            await _recorded(bus)
            await bus.api(f"$JS.API.STREAM.PURGE.{streams.CALLS}")
        return await _recorded(bus)


def _shuffled(names: Iterable[str]) -> list[str]:
    return random.sample(some := list(names), len(some))
