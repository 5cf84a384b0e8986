"""The pieces of one streamed answer on their way out: numbered, and never with more than a bounded number before them."""

from __future__ import annotations

import asyncio

from bus import call
from bus.wire import Wire
from schemas.errors import Failure

UNSENT_MOST = 1_024
"""Messages that may wait in this process for the server to take them before a piece is added."""
UNSENT_PAYLOADS_MOST = 4
"""The same for their bytes, in units of the largest message."""
LOOK_S = 0.002
LOOKS_MOST = 500
"""The handler is held up so long, a second, for the server to take some; then it is not this process that is too slow."""


class Chunks:
    """To one reply subject."""

    def __init__(self, wire: Wire, reply: str, run: str, correlation_id: str) -> None:
        self._wire = wire
        self._reply = reply
        self._head = {call.RUN: run, call.CORRELATION: correlation_id}
        self.sent = 0

    async def send(self, body: bytes) -> None:
        """Raises Failure("busy") when there is no room and the server makes none."""
        if self._full():
            await self._room()
        self._wire.send(self._reply, body, headers={call.SEQ: str(self.sent), **self._head})
        self.sent += 1

    def _full(self) -> bool:
        wire = self._wire
        return wire.unsent >= UNSENT_MOST or wire.pending_data_size > wire.max_payload * UNSENT_PAYLOADS_MOST

    async def _room(self) -> None:
        """A handler that never waits for anything lets nothing be sent meanwhile: that is no slow reader."""
        await asyncio.sleep(0)
        for _ in range(LOOKS_MOST):
            if not self._full():
                return
            await asyncio.sleep(LOOK_S)
        raise Failure("busy", "the reader of this stream is too slow")
