"""Removes the oldest events, up to a checkpoint that the chain then begins with, so that the stream is never full for good."""

from __future__ import annotations

import json
import logging
import time
from typing import Any, Literal, NamedTuple

from actors.keeper.ledger import Ledger
from actors.keeper.rules import Rules
from actors.keeper.watch import Watch
from bus import chaos
from bus.client import Bus
from bus.eventlog import STREAM
from bus.moment import rfc3339
from schemas.errors import Failure
from schemas.keeper import Checkpoint, LogTrimmed

log = logging.getLogger("vx11.keeper.trim")

API_S = 5.0


class Room(NamedTuple):
    """How full the stream is."""

    first: int
    last: int
    bytes: int
    max_bytes: int

    @property
    def share(self) -> float:
        return self.bytes / self.max_bytes if self.max_bytes > 0 else 0.0


class Plan(NamedTuple):
    through: Checkpoint
    why: Literal["age", "size"]


def plan(ledger: Ledger, rules: Rules, room: Room, settled: dict[str, int], now: float) -> Plan | None:
    """What to remove. `settled`: durable consumer with work left to the last sequence that it is done with.

    What a consumer has not handled stays, until the stream is nearly full.
    """
    kept = min(settled.values(), default=room.last)
    if room.share >= rules.trim_at:
        wanted = room.first + int((room.last - room.first + 1) * (1 - rules.trim_to / room.share))
        limit = room.last if room.share >= rules.force_at else kept
        found = ledger.checkpoint_from(wanted)
        if found is None or found.sequence > limit:
            found = ledger.checkpoint_before(limit + 1)
        if found:
            return Plan(found, "size")
    found = ledger.checkpoint_aged(kept, rfc3339(now - rules.keep_s), rfc3339(now))
    return Plan(found, "age") if found else None


async def room_in(bus: Bus) -> Room:
    """Raises Failure."""
    info = await bus.api(f"$JS.API.STREAM.INFO.{STREAM}", timeout=API_S)
    state = info["state"]
    return Room(max(1, state["first_seq"]), state["last_seq"], state["bytes"], int(info["config"].get("max_bytes", -1)))


async def settled_by(bus: Bus) -> dict[str, int]:
    """Durable consumers that have something left to do, and up to where nothing is left."""
    found: dict[str, int] = {}
    offset = 0
    while True:
        asked = json.dumps({"offset": offset}).encode()
        page = await bus.api(f"$JS.API.CONSUMER.LIST.{STREAM}", asked, timeout=API_S)
        consumers: list[dict[str, Any]] = page.get("consumers") or []
        for one in consumers:
            if not one["config"].get("durable_name"):
                continue  # somebody's look, which goes by itself
            if one["num_ack_pending"]:
                found[one["name"]] = int(one["ack_floor"]["stream_seq"])
            elif one["num_pending"]:
                found[one["name"]] = int(one["delivered"]["stream_seq"])
        offset += len(consumers)
        if not consumers or offset >= int(page["total"]):
            return found


class Trimmer:
    """First the chain's new beginning is on disk, then the events go: whatever happens between, both are good."""

    def __init__(self, bus: Bus, watch: Watch, rules: Rules) -> None:
        self._bus = bus
        self._watch = watch
        self._rules = rules

    async def trim(self, room: Room) -> None:
        """Remove what is due. Raises Failure. A broken log is left as it is: it is the evidence."""
        await self._watch.assure()  # else another stream would be cut where this one was to be
        ledger = self._watch.ledger
        if self._watch.broken:
            return
        if ledger.trimmed and (room.first <= ledger.trimmed or ledger.block(ledger.trimmed)):
            await self._purge(ledger.trimmed)  # this process was ended before it had finished
        oldest = ledger.checkpoint_from(0)
        now = time.time()
        aged = oldest and not rfc3339(now - self._rules.keep_s) <= oldest.at <= rfc3339(now)
        if oldest is None or not (aged or room.share >= self._rules.trim_at):
            return
        settled = await settled_by(self._bus)
        made = plan(ledger, self._rules, room, settled, now)
        if made:
            await self._remove(made, {name: at for name, at in settled.items() if at < made.through.sequence})

    async def _remove(self, made: Plan, unhandled: dict[str, int]) -> None:
        through = made.through.sequence
        with self._watch.written():
            self._watch.ledger.trim(made.through)
        chaos.point("keeper.trimming")
        await self._purge(through)
        if unhandled:
            log.warning("events up to %d were removed that consumers had not handled: %s", through, unhandled)
        self._watch.tell(LogTrimmed(through=through, hash=made.through.hash, why=made.why, unhandled=unhandled))

    async def _purge(self, through: int) -> None:
        asked = json.dumps({"seq": through + 1}).encode()
        done = await self._bus.api(f"$JS.API.STREAM.PURGE.{STREAM}", asked, timeout=API_S)
        if not done.get("success"):
            raise Failure("unavailable", f"the log could not be trimmed through {through}: {done}")
        chaos.point("keeper.trimmed")
        with self._watch.written():
            self._watch.ledger.forget_trimmed()
            self._watch.index.forget_before(STREAM, through + 1)
        log.info("%s events up to %d were removed", done.get("purged", "the"), through)
