"""The event log followed for as long as one likes: over restarts of the server, each event once, and a gap is said."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import NamedTuple

from bus.eventlog import EventLog, Stored
from schemas.errors import Failure

AGAIN_S = 0.25
EVERYTHING = ">"


class Gap(NamedTuple):
    """Events that cannot be told. `trimmed`: they are not there any more; `renewed`: the log is another one, and begins anew."""

    first: int
    last: int
    reason: str


class Away(NamedTuple):
    """The log cannot be read just now; it goes on by itself."""

    why: str


async def following(log: EventLog, after: int, *, subject: str = EVERYTHING) -> AsyncGenerator[Stored | Gap | Away, None]:
    """What is stored above `after`, and then what comes; `Away` once when the server is away, `Gap` when something is missing."""
    away = False
    while True:
        try:
            first, last = await log.bounds()
            if last < after:
                yield Gap(last + 1, after, "renewed")
                after = first - 1
            elif after < first - 1:
                yield Gap(after + 1, first - 1, "trimmed")
                after = first - 1
            away = False
            async for stored in log.follow(after, subject=subject):
                if subject == EVERYTHING and stored.sequence > after + 1:
                    yield Gap(after + 1, stored.sequence - 1, "trimmed")
                after = stored.sequence
                yield stored
        except Failure as failure:
            if failure.code != "unavailable":
                raise
            if not away:
                yield Away(failure.message)
            away = True
            await asyncio.sleep(AGAIN_S)
