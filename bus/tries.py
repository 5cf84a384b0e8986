"""What became of the tries of a message that is not settled yet, told to the log: so it outlives the process that tried.

A try that fails is an event, `schemas.dead.Tried`, in the conversation of the message; so is handing back what was not
begun. What no event tells of and the server has counted ended with its process.
"""

from __future__ import annotations

import json
import logging
from typing import Any, NamedTuple

from bus import call
from bus.client import Bus
from bus.dead import token
from bus.eventlog import STREAM, EventLog
from bus.moment import rfc3339_now
from bus.origin import origin_of
from bus.wire import Msg
from schemas.dead import Tried
from schemas.errors import Failure

log = logging.getLogger("vx11.tries")

TOLD_MOST = 100
"""Events that are read of one message: five tries, and how often it was handed back without one."""


class Told(NamedTuple):
    """`failed`: as the history of a dead letter has them. `returned`: deliveries that were no tries."""

    failed: list[dict[str, Any]]
    returned: int


class Tries:
    """Those of the messages of one consumer."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._log = EventLog(bus)

    def failed(self, msg: Msg, number: int, error: str, at: str) -> None:
        self._tell(msg, number=number, error=error, at=at)

    def returned(self, msg: Msg) -> None:
        self._tell(msg, number=0, error="", at=rfc3339_now())

    async def told(self, msg: Msg) -> Told:
        """What earlier processes told; nothing when the log cannot be read: then the server's count is all there is."""
        after = msg.delivery.sequence if msg.delivery.stream == STREAM else 0
        try:
            found = await self._log.page(after, TOLD_MOST, subject=_subject(msg))
        except Failure as failure:
            log.warning("the earlier tries of %s: %s", msg.subject, failure)
            return Told([], 0)
        events = [event for one in found if (event := _read(one.data))]
        failed = [{"try": e["number"], "at": e.get("at", ""), "error": e.get("error", "")} for e in events if e["number"]]
        return Told(failed, len(events) - len(failed))

    def _tell(self, msg: Msg, *, number: int, error: str, at: str) -> None:
        delivery = msg.delivery
        event = Tried(
            consumer=delivery.consumer,
            origin=msg.subject,
            sequence=delivery.sequence,
            number=number,
            error=error,
            at=at,
        )
        correlation, traceparent = origin_of(delivery.stream, delivery.sequence, msg.headers, msg.data)
        inside = {call.CORRELATION: correlation, call.TRACEPARENT: traceparent}
        try:
            self._bus.tell(event, subject=_subject(msg), headers=inside)
        except Failure as failure:
            log.warning("a try of %s is not told: %s", msg.subject, failure)


def _subject(msg: Msg) -> str:
    delivery = msg.delivery
    return f"{Tried.subject}.{delivery.consumer}.{token(delivery.sequence, delivery.timestamp)}"


def _read(body: bytes) -> dict[str, Any] | None:
    try:
        found = json.loads(body)
    except ValueError:
        return None
    return found if isinstance(found, dict) and isinstance(found.get("number"), int) else None
