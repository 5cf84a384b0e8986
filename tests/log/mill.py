"""What the tests with the actor `mill` share: where it is, and when it hears."""

from __future__ import annotations

import asyncio
from pathlib import Path

from bus import streams
from bus.client import Bus
from schemas.errors import Failure

ACTORS = Path(__file__).parent / "actors"
FED, CONSUMER = "vx11.events.mill.fed", "mill__grind"
HEARS_S = 20.0


async def hears(bus: Bus) -> None:
    """Wait until what is published is kept for it: madre makes the streams, and the consumer once a host has told of the mill."""
    async with asyncio.timeout(HEARS_S):
        while not await _has_consumer(bus):
            await asyncio.sleep(0.02)


async def _has_consumer(bus: Bus) -> bool:
    try:
        return await streams.consumer_info(bus.api, streams.EVENTS, CONSUMER) is not None
    except Failure:
        return False
