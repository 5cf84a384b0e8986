"""Copies the event log of the scratch system into the history as it grows: what the system itself says that happened."""

from __future__ import annotations

import asyncio
import json
import time
from contextlib import aclosing

from bus.client import Bus
from bus.eventlog import EventLog
from gateway.torture.history import Journal
from schemas.errors import Failure

AGAIN_S = 0.2
"""After the log could not be read."""
ALL_S = 15.0
LOOK_S = 0.05
UNSAID = ("record",)
"""Fields that say nothing about what happened and are long."""


class Recording:
    """`run` until cancelled, once `complete` has returned."""

    def __init__(self, bus: Bus, journal: Journal) -> None:
        self._log, self._journal = EventLog(bus), journal
        self._last = 0

    async def run(self) -> None:
        while True:
            try:
                async with aclosing(self._log.follow(self._last)) as stored:
                    async for one in stored:
                        self._last = one.sequence
                        body = {k: v for k, v in json.loads(one.body).items() if k not in UNSAID}
                        self._journal.line(seq=one.sequence, subject=one.subject, at=one.at, body=body)
            except Failure:
                await asyncio.sleep(AGAIN_S)  # the server is down; it is read from where it stood

    async def complete(self) -> None:
        """Return when all that the log holds now has been copied. Raises Failure when that does not come in ALL_S seconds."""
        end = time.monotonic() + ALL_S
        _, last = await self._log.bounds()
        while self._last < last:
            if time.monotonic() > end:
                raise Failure("unavailable", f"the event log could be read up to {self._last} of {last} only")
            await asyncio.sleep(LOOK_S)
