"""Where a replay goes: into its sandbox, to the live subjects, or nowhere. Each says when all that was put has been taken."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from functools import partial
from typing import Protocol

from bus.client import Bus
from bus.selection import fits, subject_of
from bus.wire import Msg
from schemas.errors import Failure

log = logging.getLogger("vx11.replay")

SANDBOX = "vx11.sandbox"
OF = "vx11-replay-of"
"""`<replay>:<sequence>` on everything that is a replay."""
ORIGINAL_SEQUENCE = "vx11-original-sequence"
ORIGINAL_TIME = "vx11-original-time"
WAS = "vx11-was-"
"""Before the name of a header that the server would obey or that would be taken for the original's."""
ADDED = frozenset(
    f"Nats-{name}" for name in ("Stream", "Subject", "Sequence", "Time-Stamp", "Num-Pending", "Last-Sequence", "UpTo-Sequence")
)
"""Written by the server on what is read from a stream."""
UNSENT_BYTES = 2 * 1024 * 1024
"""So much waits in the connection at most, and a page."""
IN_FLIGHT = 64
"""Live events that are stored at the same time."""
IN_FLIGHT_BYTES = 4 * 1024 * 1024
"""A part of what may wait in the publisher; it refuses what is more."""

HOUSE = tuple(f"vx11.events.{one}.>" for one in ("madre", "host", "supervisor", "keeper", "dlq"))
NOT_LIVE = {
    "power": "vx11.events.power.> was not played live: it holds orders to hosts and proofs of who lives and who has died; today "
    "they would start, adopt or bury what runs now. The sandbox has them",
    "house": f"{', '.join(HOUSE)} were not played live: the house says such things itself, of now",
}
"""Why events of this kind are never sent to where they once went."""

_POWER = fits("vx11.events.power.>")
_HOUSE = [fits(pattern) for pattern in HOUSE]


class Lost(Exception):
    """The connection broke: whether what was put since the last `confirm` has arrived, nobody knows."""


class Target(Protocol):
    """Where it goes. Made for one replay."""

    def put(self, msg: Msg) -> str:
        """Send it, or say in a word why not. Never suspends. Raises Failure for what cannot be sent, and Lost."""

    async def room(self) -> None:
        """Return when more may be put. Raises Lost."""

    async def confirm(self) -> None:
        """Return when everything put so far has been taken. Raises Lost, and Failure when something was refused."""

    def again(self) -> None:
        """Begin anew after a break."""

    async def close(self) -> None:
        """Give up what is under way."""


class Sandbox:
    """Core messages under a prefix that no stream takes. An echo proves that the server has had all before it."""

    def __init__(self, bus: Bus, replay: str) -> None:
        self._prefix = self.name_of(replay)
        self._wire = bus.wire
        self._of = f"{replay}:"
        self._lost = False
        self._denied = bus.wire.denied
        bus.wire.on_disconnect.append(self._broke)

    @staticmethod
    def name_of(replay: str) -> str:
        """What stands before each subject."""
        return f"{SANDBOX}.{replay}."

    def put(self, msg: Msg) -> str:
        head = msg.headers or {}
        if self._lost:
            raise Lost
        try:
            self._wire.send(self._prefix + head["Nats-Subject"], msg.data, headers=carried(head, self._of))
        except Failure as failure:
            if failure.code == "unavailable":
                raise Lost from failure
            raise
        return ""

    async def room(self) -> None:
        if self._wire.pending_data_size > UNSENT_BYTES:
            await self.confirm()

    async def confirm(self) -> None:
        heard = False
        while not heard and not self._lost:
            try:
                await self._wire.barrier()
                heard = True
            except Failure as failure:  # a slow server is no broken connection
                log.debug("no echo yet: %s", failure)
        if self._lost:
            raise Lost
        if self._wire.denied > self._denied:
            raise Failure("forbidden", f"the server does not let this user publish to {self._prefix}>")

    def again(self) -> None:
        self._lost = False

    async def close(self) -> None:
        self._wire.on_disconnect.remove(self._broke)

    def _broke(self) -> None:
        self._lost = True


class Live:
    """Stored again where they once were, each with an id of its own: what is sent twice is kept once, also after a break."""

    NAME = "live"

    def __init__(self, bus: Bus, replay: str) -> None:
        self._bus = bus
        self._of = f"{replay}:"
        self._going: set[asyncio.Task[int]] = set()
        self._bytes = 0
        self._failed: Failure | None = None

    def put(self, msg: Msg) -> str:
        subject = subject_of(msg)
        if why := not_live(subject):
            return why
        headers = carried(msg.headers or {}, self._of)
        storing = self._bus.publish_raw(subject, msg.data, message_id=headers[OF], headers=headers)
        task = asyncio.create_task(storing)
        self._going.add(task)
        self._bytes += len(msg.data)
        task.add_done_callback(partial(self._stored, len(msg.data)))
        return ""

    async def room(self) -> None:
        while len(self._going) >= IN_FLIGHT or self._bytes >= IN_FLIGHT_BYTES:
            await asyncio.wait(self._going, return_when=asyncio.FIRST_COMPLETED)
        if self._failed:
            raise self._failed

    async def confirm(self) -> None:
        if self._going:
            await asyncio.wait(tuple(self._going))
        if self._failed:
            raise self._failed

    def again(self) -> None:
        return  # nothing to begin anew: what was under way is tried again with the same id

    async def close(self) -> None:
        for task in self._going:
            task.cancel()
        if self._going:
            await asyncio.wait(self._going)

    def _stored(self, size: int, task: asyncio.Task[int]) -> None:
        self._going.discard(task)
        self._bytes -= size
        if task.cancelled() or (error := task.exception()) is None:
            return
        self._failed = error if isinstance(error, Failure) else Failure("internal", f"an event could not be stored: {error!r}")


class Nowhere:
    """For counting."""

    def put(self, msg: Msg) -> str:  # noqa: ARG002 - counted by whoever puts it
        return ""

    async def room(self) -> None:
        await asyncio.sleep(0)

    async def confirm(self) -> None:
        return

    def again(self) -> None:
        return

    async def close(self) -> None:
        return


def not_live(subject: str) -> str:
    """Why such an event is never played live, as a key of NOT_LIVE; empty when it may be."""
    if _POWER(subject):
        return "power"
    return "house" if any(fit(subject) for fit in _HOUSE) else ""


def carried(head: Mapping[str, str], of: str) -> dict[str, str]:
    """The headers of a stored message as its replay has them; `of`: what the replay is called in OF."""
    made: dict[str, str] = {}
    for name, value in head.items():
        if not name.startswith("Nats-"):
            made[name] = value
        elif name not in ADDED:
            made[WAS + name] = value
    sequence = head["Nats-Sequence"]
    made[OF] = of + sequence
    made[ORIGINAL_SEQUENCE] = sequence
    made[ORIGINAL_TIME] = head["Nats-Time-Stamp"]
    return made
