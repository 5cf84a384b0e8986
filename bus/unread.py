"""The frames of one streamed answer that have come and that its reader has not taken yet: bounded."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from bus import call
from bus.wire import Msg
from schemas.errors import Failure

UNREAD_MOST = 1_024
UNREAD_BYTES_MOST = 16 * 1024 * 1024


class Unread:
    """Beyond its bounds nothing more is kept: the reader gets what there is, then Failure("busy")."""

    def __init__(self, overrun: Callable[[], None]) -> None:
        """`overrun`: called once, when no more frames are wanted."""
        self._overrun = overrun
        self._frames: asyncio.Queue[Msg | Failure] = asyncio.Queue()
        self._bytes = 0
        self._judging = False
        self._over = False

    def put(self, frame: Msg | Failure) -> None:
        """Whoever looks for its reader needs no answer: only one that is not there gives one."""
        if self._over or (isinstance(frame, Msg) and call.PROBE in (frame.headers or call.NO_HEADERS)):
            return
        self._frames.put_nowait(frame)
        self._bytes += _size(frame)
        if self._full() and not self._judging:
            self._judging = True
            asyncio.get_running_loop().call_soon(self._judge)

    async def get(self) -> Msg | Failure:
        frame = await self._frames.get()
        self._bytes -= _size(frame)
        return frame

    def _full(self) -> bool:
        return self._frames.qsize() > UNREAD_MOST or self._bytes > UNREAD_BYTES_MOST

    def _judge(self) -> None:
        """One read of the socket may bring more than the bound; a reader that waits for frames has had its turn by now."""
        self._judging = False
        if self._full():
            self._over = True
            self._frames.put_nowait(Failure("busy", "the pieces of this answer came faster than they were read"))
            self._overrun()


def _size(frame: Msg | Failure) -> int:
    return len(frame.data) if isinstance(frame, Msg) else 0
