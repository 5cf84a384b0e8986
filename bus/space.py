"""The room on the disk under the home: how much of it is free, and whether that is less than what is kept in reserve."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from bus.settings import Settings
from schemas.errors import Failure

VARIABLE = "VX11_DISK_RESERVE_MB"
MIB = 1024 * 1024
RESERVE_MB = 512.0
RESERVE_SHARE = 0.05
"""Of the whole disk, where that is less: a small disk is not all reserve."""
WELL_AGAIN = 1.25
"""So much more than the reserve must be free before things are accepted again: no door that opens and shuts each second."""
LOOK_S = 1.0
"""Between two looks; a look is one system call."""
RETRY_S = 10

Measure = Callable[[Path], tuple[int, int]]


class Room(NamedTuple):
    """In bytes. `low`: what would have to be stored is not accepted."""

    free: int
    reserve: int
    low: bool

    @property
    def told(self) -> str:
        """Why, and what to do; empty while there is room."""
        if not self.low:
            return ""
        return (
            f"the disk has {self.free / MIB:.0f} MB free, and {self.reserve / MIB:.0f} MB are kept in reserve ({VARIABLE}):"
            " nothing is accepted that would have to be stored; free some space and it goes on by itself"
        )


def measured(folder: Path) -> tuple[int, int]:
    """Bytes that we may still write on the disk of `folder`, and its size."""
    seen = os.statvfs(folder)
    return seen.f_bavail * seen.f_frsize, seen.f_blocks * seen.f_frsize


class Reserve:
    """Looks when it is asked, at most once in LOOK_S, and remembers whether there was too little."""

    def __init__(self, home: Path, megabytes: float | None = None, *, measure: Measure = measured) -> None:
        """`megabytes`: RESERVE_MB or RESERVE_SHARE of the disk, whichever is less, unless said; 0 keeps nothing."""
        self._home = home
        self._megabytes = megabytes
        self._measure = measure
        self._looked_at = -LOOK_S
        self._room = Room(0, 0, low=False)

    @classmethod
    def of(cls, settings: Settings) -> Reserve:
        """Raises Failure("invalid") for a variable that is no size."""
        try:
            megabytes = settings.number(VARIABLE, RESERVE_MB)
        except ValueError as error:
            raise Failure("invalid", str(error)) from error
        if not 0 <= megabytes < math.inf:
            raise Failure("invalid", f"{VARIABLE}={megabytes:g} is no size; write for instance {VARIABLE}=512, or 0 for none")
        return cls(settings.home, megabytes if settings.get(VARIABLE) else None)

    def room(self) -> Room:
        """What there is now, or was within the last second."""
        now = time.monotonic()
        if now - self._looked_at >= LOOK_S:
            self._room = self._look()
            self._looked_at = now
        return self._room

    def check(self) -> None:
        """Raises Failure("storage_full") while there is too little."""
        room = self.room()
        if room.low:
            raise Failure("storage_full", room.told, free_bytes=room.free, reserve_bytes=room.reserve, retry_after=RETRY_S)

    def _look(self) -> Room:
        free, size = self._measure(self._home)
        most = RESERVE_MB * MIB
        reserve = int(min(most, size * RESERVE_SHARE) if self._megabytes is None else self._megabytes * MIB)
        return Room(free, reserve, free < reserve * (WELL_AGAIN if self._room.low else 1.0))
