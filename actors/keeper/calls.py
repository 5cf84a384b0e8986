"""Indexes the call records, a moment after they were made: nobody vouches for them, and they go by themselves after a day."""

from __future__ import annotations

import asyncio
import math

from actors.keeper.watch import Watch, conversation_of
from bus.client import Bus
from bus.eventlog import PAGE, EventLog
from bus.streams import CALLS

KEPT_MOST = 50_000
"""So many entries of records that are gone may stay in the index before they are removed."""


class Calls:
    """`catch_up` now and then, and before a search."""

    def __init__(self, bus: Bus, watch: Watch) -> None:
        self._log = EventLog(bus, CALLS, "vx11.calls.>")
        self._watch = watch
        self._turn = asyncio.Lock()
        self._forgotten = 0
        self.first = 1
        """The oldest record that is there."""

    async def catch_up(self, most: float = math.inf) -> None:
        """Index what is there, `most` records or a page more. Raises Failure."""
        index = self._watch.index
        async with self._turn:
            self.first, last = await self._log.bounds()
            if last < index.through(CALLS):  # records are not synced one by one: a power cut may take the last of them
                with self._watch.written():
                    index.forget_after(CALLS, last)
            until = index.through(CALLS) + most
            while index.through(CALLS) < min(last, until):
                page = await self._log.read(max(index.through(CALLS), self.first - 1), PAGE)
                if not page:
                    break
                with self._watch.written():
                    entries = [(record.sequence, id_) for record in page if (id_ := conversation_of(record))]
                    index.add(CALLS, entries, page[-1].sequence)
            if self.first - self._forgotten > KEPT_MOST:
                with self._watch.written():
                    index.forget_before(CALLS, self.first)
                self._forgotten = self.first
