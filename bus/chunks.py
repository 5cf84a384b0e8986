"""The pieces of one streamed answer on their way out: numbered, bounded, and only as long as somebody reads them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from bus import call
from bus.wire import Msg, Wire, status_of
from schemas.errors import Failure

UNSENT_MOST = 1_024
"""Messages that may wait in this process for the server to take them before a piece is added."""
UNSENT_PAYLOADS_MOST = 4
"""The same for their bytes, in units of the largest message."""
LOOK_S = 0.002
LOOKS_MOST = 500
"""The handler is held up so long, a second, for the server to take some; then it is not this process that is too slow."""
PROBE_S = 0.25
"""So often whoever reads is looked for: an abandoned answer ends within a second, two streams deep."""
ABSENT_MOST = 2
"""Looks in a row that find no connection of the reader's: one may fall between a break and the reconnect."""
RECONNECT_GRACE_S = 2.0
"""After a break of our own, the readers need a while to be back, too."""


class Chunks:
    """To whoever sent `asked`. `abandoned`: nobody reads them any more."""

    def __init__(self, wire: Wire, asked: Msg, run: str, correlation_id: str) -> None:
        self._wire = wire
        self._reply = asked.reply
        self._head = {call.RUN: run, call.CORRELATION: correlation_id}
        self._probes = call.PROBE in (asked.headers or call.NO_HEADERS)
        """The reader knows messages that only look for it; to others each message without a number were an answer."""
        self._back = ""
        """Where the next piece asks to be told when nobody reads; empty: it does not ask."""
        self._absent = 0
        self._missed = False
        self._connection = wire.reconnects
        self._trusted_at = 0.0
        self._timer: asyncio.TimerHandle
        self.sent = 0
        self.abandoned = False

    async def send(self, body: bytes) -> None:
        """Raises Failure("busy") when there is no room and the server makes none."""
        if self._full():
            await self._room()
        headers = {call.SEQ: str(self.sent), **self._head}
        self._wire.send(self._reply, body, reply=self._back, headers=headers, now=not self.sent)
        self._back = ""
        self.sent += 1

    @contextmanager
    def while_read(self, *, unless: Callable[[], bool]) -> Iterator[None]:
        """Cancel the task that is inside once nobody reads any more, unless it is wanted otherwise.

        Raises Failure("cancelled") then. The server says so of a subject without a subscriber, our own clients of an answer
        that they have given up.
        """
        loop = asyncio.get_running_loop()
        task = asyncio.current_task(loop)
        assert task is not None  # a handler is run by one

        def look() -> None:
            self._look(back)
            self._timer = loop.call_later(PROBE_S, look)

        def told(msg: Msg) -> None:
            if self._says_gone(msg) and not self.abandoned and not unless():
                self.abandoned = True
                task.cancel()

        token, back = self._wire.await_answer(told)
        self._timer = loop.call_later(PROBE_S, look)
        try:
            yield
        except asyncio.CancelledError:
            if not self.abandoned:
                raise
            raise Failure("cancelled", "whoever read this answer has gone") from None
        finally:
            self._timer.cancel()
            self._wire.forget_answer(token)

    def _look(self, back: str) -> None:
        if self._connection != self._wire.reconnects or not self._wire.is_connected:
            self._connection, self._trusted_at = self._wire.reconnects, time.monotonic() + RECONNECT_GRACE_S
        if not self._missed and not self._back:  # else no piece has asked since the last look
            self._absent = 0
        self._missed = False
        if not self._probes:
            self._back = back
        elif self._wire.is_connected:
            self._wire.send(self._reply, reply=back, headers={call.PROBE: "1"})

    def _says_gone(self, msg: Msg) -> bool:
        if status_of(msg) != "503":
            return True
        self._missed = True
        self._absent += time.monotonic() >= self._trusted_at
        return self._absent >= ABSENT_MOST

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


def asks_stream(msg: Msg) -> bool:
    return (msg.headers or call.NO_HEADERS).get(call.STREAM) == "1"
