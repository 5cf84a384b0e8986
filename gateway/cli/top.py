"""`top`: a live table of the actors: state, rate, latency, what is in hand, and what each process costs. Wakes nobody."""

from __future__ import annotations

import asyncio
import json
import math
import sys
import time
from collections import defaultdict
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gateway.cli.desk import AsJson, Desk, desk_of

if TYPE_CHECKING:
    from bus.client import Bus
    from bus.wire import Msg
    from gateway.cli.home import Running
    from gateway.cli.process import Seen
    from gateway.cli.remote import Remote
    from schemas.madre import ActorList, ActorStatus

WINDOW_S = 2.0
"""Between two pictures; rates and latencies are those of this time. A heartbeat comes as often."""
CLEAR = "\x1b[H\x1b[2J"
"""The cursor to the corner, the screen empty."""


@dataclass
class Traffic:
    """What the call records of one window tell of one actor. `shed`: records that were not sent, as the heartbeats count."""

    took_ms: list[float] = field(default_factory=list)
    errors: int = 0
    shed: int = 0


@dataclass(frozen=True)
class Row:
    """One actor. None: not known, or there is no process. `rate`: answers a second; at least, when records were `shed`."""

    actor: str
    state: str
    rate: float
    errors: int
    shed: int
    p50_ms: float | None
    p99_ms: float | None
    in_flight: int
    held: int
    wakes: int
    last_wake_ms: float | None
    pid: int
    memory_bytes: int | None
    memory_kind: str
    cpu_percent: float | None


class Ears:
    """Counts what is heard on the bus between two pictures."""

    def __init__(self) -> None:
        self._traffic: dict[str, Traffic] = defaultdict(Traffic)
        self._shed: dict[str, int] = {}
        self._begun = time.monotonic()

    async def open(self, bus: Bus) -> None:
        await bus.listen("vx11.calls.>", self.heard_call)
        await bus.listen("vx11.hb.>", self.heard_beat)
        await bus.wire.barrier()
        self._begun = time.monotonic()

    def heard_call(self, msg: Msg) -> None:
        """A record of a call. What a stranger publishes there and is none counts for nothing."""
        told = _object(msg.data)
        took = told.get("took_ms")
        if not isinstance(took, int | float):
            return
        traffic = self._traffic[msg.subject.split(".")[2]]
        traffic.took_ms.append(float(took))
        traffic.errors += told.get("code") != "ok"

    def heard_beat(self, msg: Msg) -> None:
        told = _object(msg.data)
        run, shed = told.get("run"), told.get("shed")
        if isinstance(run, str) and isinstance(shed, int):
            self._traffic[msg.subject.split(".")[2]].shed += max(0, shed - self._shed.get(run, shed))
            self._shed[run] = shed

    def take(self) -> tuple[dict[str, Traffic], float]:
        """What was heard since the last time, and in how many seconds."""
        now = time.monotonic()
        traffic, self._traffic = self._traffic, defaultdict(Traffic)
        lasted, self._begun = now - self._begun, now
        return traffic, lasted


def top(
    ctx: typer.Context,
    once: Annotated[bool, typer.Option("--once", help="One picture, after one interval.")] = False,
    every: Annotated[float, typer.Option(help="Seconds between two pictures.", min=0.2, max=60.0)] = WINDOW_S,
    json: AsJson = False,
) -> None:
    """Watch the actors at work: requests a second, latency, what waits, memory. With --json a picture a line. Ctrl-C ends it."""
    desk = desk_of(ctx, json=json)
    try:
        desk.run(lambda remote: _watch(desk, remote, every, once=once))
    except KeyboardInterrupt:
        return


async def _watch(desk: Desk, remote: Remote, every: float, *, once: bool) -> None:
    from gateway.cli.bus_remote import BusRemote
    from gateway.cli.home import running
    from gateway.cli.remote import request
    from schemas.errors import Failure
    from schemas.madre import ListActors

    if not isinstance(remote, BusRemote):
        told = "top watches the bus of this machine, but VX11_URL points to a gateway"
        raise Failure("invalid", told, next=[["vx11 status", "what its actors do"], ["unset VX11_URL", "to watch this machine"]])
    ears, run = Ears(), running(desk.settings)
    await ears.open(remote.bus)
    listed = await request(remote, ListActors())
    before = _processes(run, listed)
    while True:
        await asyncio.sleep(every)
        try:
            listed = await request(remote, ListActors())
        except Failure as failure:
            if once:
                raise
            desk.screen.talk(f"madre does not answer: {failure.message}")
            continue
        traffic, lasted = ears.take()
        seen = _processes(run, listed)
        rows = rows_of(listed, traffic, lasted, before, seen)
        before = seen
        _show(desk, listed, rows, lasted, live=not once)
        if once:
            return


def _processes(run: Running, listed: ActorList) -> dict[int, Seen]:
    from gateway.cli.process import processes

    return {one.pid: one for one in processes(run, {actor.pid: actor.name for actor in listed.actors if actor.pid})}


def rows_of(
    listed: ActorList, traffic: dict[str, Traffic], lasted: float, before: dict[int, Seen], seen: dict[int, Seen]
) -> list[Row]:
    """The busiest first, then by name; who is not known to madre, as she herself, only when something was heard of it."""
    rows = [_row(actor, traffic.get(actor.name, Traffic()), lasted, before, seen) for actor in listed.actors]
    return sorted(rows, key=lambda row: (-row.rate, row.state == "dormant", row.actor))


def _row(actor: ActorStatus, traffic: Traffic, lasted: float, before: dict[int, Seen], seen: dict[int, Seen]) -> Row:
    process, earlier = seen.get(actor.pid), before.get(actor.pid)
    spent = process.cpu_s - earlier.cpu_s if process and earlier else None
    return Row(
        actor=actor.name,
        state=actor.state,
        rate=round(len(traffic.took_ms) / lasted, 1),
        errors=traffic.errors,
        shed=traffic.shed,
        p50_ms=percentile(traffic.took_ms, 0.5),
        p99_ms=percentile(traffic.took_ms, 0.99),
        in_flight=actor.in_flight,
        held=actor.held,
        wakes=actor.wakes,
        last_wake_ms=actor.last_wake_ms,
        pid=actor.pid,
        memory_bytes=process.memory_bytes if process else None,
        memory_kind=process.kind if process else "",
        cpu_percent=None if spent is None else round(max(0.0, spent) / lasted * 100, 1),
    )


def percentile(values: list[float], part: float) -> float | None:
    """The smallest value that `part` of all do not exceed; None without any."""
    if not values:
        return None
    return round(sorted(values)[max(0, math.ceil(len(values) * part) - 1)], 2)


def _show(desk: Desk, listed: ActorList, rows: list[Row], lasted: float, *, live: bool) -> None:
    if desk.screen.json:
        document = {"window_s": round(lasted, 2), "mode": listed.mode, "actors": [asdict(row) for row in rows]}
        desk.screen.json_line(document)
        return
    if live and sys.stdout.isatty():
        sys.stdout.write(CLEAR)
    awake = sum(row.state != "dormant" for row in rows)
    total = sum(row.rate for row in rows)
    desk.screen.line(f"{awake} of {len(rows)} actors awake, mode {listed.mode}, {total:.0f} answers/s in the last {lasted:.1f} s")
    columns = (
        "actor",
        "state",
        ">req/s",
        ">p50",
        ">p99",
        ">errors",
        ">in hand",
        ">held",
        ">wakes",
        ">last wake",
        ">memory",
        ">cpu",
    )
    desk.screen.table(columns, [_cells(desk, row) for row in rows])
    sys.stdout.flush()


def _cells(desk: Desk, row: Row) -> tuple[Any, ...]:
    from gateway.cli.amount import size

    rate = f"{'≥' if row.shed else ''}{row.rate:.0f}" if row.rate >= 10 or not row.rate else f"{row.rate:.1f}"
    return (
        row.actor,
        desk.screen.state(row.state),
        rate,
        _ms(row.p50_ms),
        _ms(row.p99_ms),
        str(row.errors),
        str(row.in_flight),
        str(row.held),
        str(row.wakes),
        _ms(row.last_wake_ms),
        "–" if row.memory_bytes is None else size(row.memory_bytes),
        "–" if row.cpu_percent is None else f"{row.cpu_percent:.0f} %",
    )


def _ms(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:.1f} ms" if value < 10 else f"{value:.0f} ms"


def _object(data: bytes) -> dict[str, Any]:
    try:
        found = json.loads(data)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
