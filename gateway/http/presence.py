"""Whether the client is still there while its answer is made."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web

from gateway.http.exchange import Exchange
from schemas.errors import Failure

LOOK_S = 0.2
"""So late at most it is noticed that a client has gone."""


@asynccontextmanager
async def watched(x: Exchange) -> AsyncIterator[None]:
    """Break off what is done inside once the client has closed its connection: raises Failure("cancelled")."""
    gone = False
    timer: asyncio.TimerHandle | None = None

    def look() -> None:
        nonlocal gone, timer
        if has_gone(x.request):
            gone = True
            clock.reschedule(x.loop.time())
        else:
            timer = x.loop.call_later(LOOK_S, look)

    try:
        async with asyncio.timeout(None) as clock:
            look()
            yield
    except TimeoutError:
        if not gone:
            raise
        raise Failure("cancelled", "the client has gone before its answer was whole") from None
    finally:
        if timer is not None:
            timer.cancel()


def has_gone(request: web.BaseRequest) -> bool:
    transport = request.transport
    return transport is None or transport.is_closing()
