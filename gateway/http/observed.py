"""What was seen of the actors, when, and by whom. Looking wakes nobody."""

from __future__ import annotations

import asyncio
import time
from contextvars import Context
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

from bus.space import Reserve, Room
from gateway.http.kept import NEVER_HEARD, KeeperHeard, Kept
from gateway.http.parts import BusLike, CacheLike
from gateway.moment import rfc3339
from schemas.errors import Failure
from schemas.madre import ActorList, ActorStatus, ListActors, Window

Health = Literal["up", "down", "unknown"]

FRESH_S = 0.25
"""One look serves all who ask within."""
LOOK_S = 0.5
"""madre and redis answer within, or count as down."""
CORE = ("madre", "redis", "tentaculo_link")
"""The three that are always awake."""
AWAKE = frozenset({"handover", "active", "draining"})
_ASLEEP = frozenset({"dormant", "waking", "failed"})
UNSEEN = Room(0, 0, low=False)
"""Before the first look at the disk."""


class Seen(NamedTuple):
    """The health of one of the three. `last_seen`: when it last was up, empty if never."""

    state: Health
    observed_at: str
    reason: str = ""
    last_seen: str = ""


@dataclass(frozen=True)
class Look:
    """One look at everything. While madre does not answer, `actors` are the last known ones, and `known` is False."""

    at: float
    core: dict[str, Seen]
    actors: tuple[ActorStatus, ...] = ()
    actors_at: str = ""
    known: bool = False
    policy: str = "unknown"
    mode: str = "unknown"
    windows: tuple[Window, ...] = ()
    room: Room = UNSEEN
    log: Kept = NEVER_HEARD

    @property
    def observed_at(self) -> str:
        return rfc3339(self.at)

    def health(self, actor: ActorStatus) -> Health:
        if not self.known or actor.state not in AWAKE | _ASLEEP:
            return "unknown"
        return "up" if actor.state in AWAKE else "down"

    def seen_at(self, actor: ActorStatus) -> str:
        return actor.observed_at or self.actors_at

    def find(self, name: str) -> ActorStatus | None:
        return next((actor for actor in self.actors if actor.name == name), None)

    @property
    def status(self) -> Literal["ok", "degraded", "down"]:
        """down: nobody decides; degraded: something else that should be well is not."""
        if self.core["madre"].state != "up":
            return "down"
        failed = any(actor.state == "failed" for actor in self.actors)
        well = not failed and not self.room.low and not self.log.bad
        return "ok" if well and all(seen.state == "up" for seen in self.core.values()) else "degraded"


class Observed:
    """Looks at most every FRESH_S, once for all who ask at the same time."""

    def __init__(self, bus: BusLike, cache: CacheLike, reserve: Reserve) -> None:
        self._bus = bus
        self._cache = cache
        self._reserve = reserve
        self.keeper = KeeperHeard()
        self._last: Look | None = None
        self._until = 0.0
        self._looking: asyncio.Task[Look] | None = None
        self._begun_stale = False
        """Something has been done since the look that is under way began."""

    async def look(self) -> Look:
        if self._last is not None and time.monotonic() < self._until:
            return self._last
        if self._looking is None or self._begun_stale:
            self._begun_stale = False
            self._looking = asyncio.create_task(self._look(), context=Context())  # it is for all, and no part of one request
            self._looking.add_done_callback(self._looked)
        return await asyncio.shield(self._looking)

    def stale(self) -> None:
        """Something has been done: whoever looks next must see it."""
        self._until = 0.0
        self._begun_stale = self._looking is not None

    async def aclose(self) -> None:
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.wait({self._looking})

    def _looked(self, task: asyncio.Task[Look]) -> None:
        if task is not self._looking:
            return  # a later one is under way
        self._looking = None
        if self._begun_stale:
            self._begun_stale = False
            return
        if not task.cancelled() and task.exception() is None:
            self._last = task.result()
            self._until = time.monotonic() + FRESH_S

    async def _look(self) -> Look:
        (madre, listed), redis = await asyncio.gather(self._madre(), self._redis())
        now, room, log = time.time(), self._reserve.room(), self.keeper.now()
        core = {"madre": madre, "redis": redis, "tentaculo_link": Seen("up", rfc3339(now), "", rfc3339(now))}
        if listed is None:
            return replace(
                self._last or Look(now, core),
                at=now,
                core=core,
                known=False,
                policy="unknown",
                mode="unknown",
                windows=(),
                room=room,
                log=log,
            )
        actors = tuple(actor for actor in listed.actors if actor.name not in CORE)
        return Look(now, core, actors, rfc3339(now), True, listed.policy, listed.mode, tuple(listed.windows), room, log)

    async def _madre(self) -> tuple[Seen, ActorList | None]:
        if not self._bus.connected:
            return self._not_seen("madre", "unknown", "there is no connection to the bus just now"), None
        try:
            listed = await self._bus.request(ListActors(), timeout=LOOK_S)
        except Failure as failure:
            return self._not_seen("madre", "down", f"no answer within {LOOK_S:g} s ({failure.code})"), None
        now = rfc3339(time.time())
        return Seen("up", now, "", now), listed

    async def _redis(self) -> Seen:
        try:
            async with asyncio.timeout(LOOK_S):
                await self._cache.ping()
        except TimeoutError:
            return self._not_seen("redis", "down", f"no answer within {LOOK_S:g} s")
        except Failure as failure:
            return self._not_seen("redis", "down", failure.message)
        now = rfc3339(time.time())
        return Seen("up", now, "", now)

    def _not_seen(self, name: str, state: Health, reason: str) -> Seen:
        last = self._last.core[name].last_seen if self._last else ""
        return Seen(state, rfc3339(time.time()), reason, last)
