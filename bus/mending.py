"""The care for nats-server when its disk was full: a stream that could not write once stores nothing more until a restart.

Measured with nats-server 2.15.1: publishes go on timing out after space was freed; a restart mends it and loses nothing.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from bus import call
from bus.moment import rfc3339_now
from bus.settings import Settings
from bus.space import MIB, Reserve, Room
from schemas.errors import Failure
from schemas.message import Event
from schemas.storage import ServerMended, StorageBack, StorageLow

log = logging.getLogger("vx11.supervisor")

SIGNS = (b"critical write error", b"no space left on device")
"""What the server logs when it could not write, and again at each try; a stream at its own bound is no such thing."""
GONE_BYTES = MIB
"""With less free than the largest message needs, writes may have failed unseen: the log is on the same disk."""
ENOUGH_BYTES = 4 * MIB
"""Started anew with less it would soon stand where it stood."""
ENOUGH_SHARE = 0.5
"""Of the reserve: enough for what VX11 itself has to write, and so before the door accepts again."""
PAUSE_FIRST_S = 10.0
PAUSE_MOST_S = 600.0
"""Between two restarts; doubled each time, for a disk that is broken rather than full."""
CALM_S = 600.0
"""After so long without a failed write the next restart is at once again."""
READ_BYTES_MOST = 1024 * 1024
"""Of the log at a look; of more only the end is read."""
TELL_S = 60.0
TELL_AGAIN_S = 0.1


class FailedWrites:
    """Finds the signs in what the server has logged since the last look."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._position = 0
        self.forget()

    def forget(self) -> None:
        """What stands there now is not looked at."""
        self._position = self._size()

    def look(self) -> bool:
        size = self._size()
        begin = self._position if self._position <= size else 0  # begun anew
        self._position = size
        if size == begin:
            return False
        with self._file.open("rb") as file:
            file.seek(max(begin, size - READ_BYTES_MOST))
            text = file.read(READ_BYTES_MOST).lower()
        return any(sign in text for sign in SIGNS)

    def _size(self) -> int:
        try:
            return self._file.stat().st_size
        except FileNotFoundError:
            return 0


class Mending:
    """`look` is called each second; `restart` ends the server, which is then started again as after any end."""

    def __init__(self, reserve: Reserve, server_log: Path, restart: Callable[[], None] | None) -> None:
        """Without `restart` the server is not ours, and only the room is watched."""
        self._reserve = reserve
        self._failed = FailedWrites(server_log)
        self._restart = restart
        self._low = False
        self.reason = ""
        """Why it must be started anew; empty while it need not."""
        self._due = self._bad_at = 0.0
        self._pause = PAUSE_FIRST_S

    def look(self, now: float | None = None) -> list[Event]:
        """Do what is to be done; what is to be told. `now`: on the monotonic clock."""
        now = time.monotonic() if now is None else now
        try:
            room = self._reserve.room()
            self._suspect(room)
        except OSError as error:
            log.warning("the room on the disk cannot be looked at: %s", error)
            return []
        return [*self._change(room), *self._mend(room, now)]

    def _suspect(self, room: Room) -> None:
        if self._restart is None:
            return
        if self._failed.look() and not self.reason:
            self.reason = "its log says that a write failed"
        elif room.reserve and room.free < GONE_BYTES and not self.reason:
            self.reason = "the disk was full"

    def _change(self, room: Room) -> list[Event]:
        if room.low == self._low:
            return []
        self._low = room.low
        log.warning("%s", room.told or f"the disk has room again: {room.free / MIB:.0f} MB are free")
        kind = StorageLow if room.low else StorageBack
        return [kind(free_bytes=room.free, reserve_bytes=room.reserve, at=rfc3339_now())]

    def _mend(self, room: Room, now: float) -> list[Event]:
        enough = max(ENOUGH_BYTES, int(room.reserve * ENOUGH_SHARE))
        if self.reason:
            if now - self._bad_at > CALM_S:
                self._pause = PAUSE_FIRST_S
            self._bad_at = now  # to wait for room, or for the end of the pause, is no calm
        if not self.reason or self._restart is None or room.free < enough or now < self._due:
            return []
        reason, self.reason = f"{self.reason}, and {room.free / MIB:.0f} MB are free", ""
        log.warning("nats-server is started anew: %s", reason)
        self._restart()
        self._failed.forget()
        self._due = now + self._pause
        self._pause = min(2 * self._pause, PAUSE_MOST_S)
        return [ServerMended(reason=reason, free_bytes=room.free, at=rfc3339_now())]


def tell(settings: Settings, url: str, events: Sequence[Event]) -> int:
    """Store the events; for a process of its own, as the supervisor has no connection. Returns its exit code."""
    return asyncio.run(_tell(settings, url, events))


async def _tell(settings: Settings, url: str, events: Sequence[Event]) -> int:
    from bus.client import Bus  # the supervisor itself, which the command line imports, needs none

    seed = settings.seed_file("host")
    end = time.monotonic() + TELL_S
    left = [(call.new_request_id(), event) for event in events]
    while left:
        try:
            async with Bus.connect(url, user="host", seed=seed if seed.exists() else None, name="supervisor") as bus:
                while left:
                    await bus.publish(left[0][1], message_id=left[0][0])
                    del left[0]
        except Failure as failure:
            if time.monotonic() > end:
                log.error("%s cannot be stored: %s", ", ".join(event.subject for _, event in left), failure)
                return 1
            await asyncio.sleep(TELL_AGAIN_S)
    return 0
