"""Leave to hold a model in memory: one holder at a time among all processes of a home, freed by whatever ends the holder."""

from __future__ import annotations

import asyncio
import fcntl
import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from schemas.errors import Failure
from schemas.message import Event
from schemas.models import ModelMemoryWanted

FILE = "lease"
LOOK_S = 0.02
"""Between two looks of somebody who waits; nobody is told when a process that was killed frees its lock."""
TELL_AGAIN_S = 1.0
"""A holder that began to listen after the first word hears the next."""
GIVE_WAY_S = 0.2
"""Who has let go on request takes the lease again no sooner: whoever waits has had several looks by then."""
WORDS_MAX_BYTES = 400


class Holder(NamedTuple):
    """`what`: the model that is in memory, or on its way there."""

    who: str
    what: str


class Lease:
    """The lock (flock) of one file. `descriptor` may be handed to a child, and is then held until that child has ended, too.

    `who`: told to the holder and written into the file for people. `tell`: publishes an event.
    """

    def __init__(self, folder: Path, who: str, tell: Callable[[Event], None]) -> None:
        self._path = folder / FILE
        self.who = who
        self._tell = tell
        self._give_way_until = 0.0
        self.descriptor = -1

    @property
    def held(self) -> bool:
        return self.descriptor >= 0

    async def take(self, until: float, what: str) -> None:
        """Wait for the lease. `until`: a moment on the loop's clock. Raises Failure `busy`, naming who has it.

        `what`: the model that is going to be loaded.
        """
        loop = asyncio.get_running_loop()
        if self.held:
            return
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            await asyncio.sleep(max(0.0, min(self._give_way_until, until) - loop.time()))
            told = -TELL_AGAIN_S
            while not _locked(descriptor):
                if loop.time() >= until:
                    raise Failure("busy", f"the models' memory is held by {_words(descriptor).who}, who is working")
                if loop.time() - told >= TELL_AGAIN_S:
                    told = loop.time()
                    self._tell(ModelMemoryWanted(who=self.who))
                await asyncio.sleep(LOOK_S)
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{self.who}\n{what}\n".encode(), 0)
        except BaseException:
            os.close(descriptor)
            raise
        self.descriptor = descriptor

    def release(self, *, wanted: bool = False) -> None:
        """Let go. `wanted`: somebody has asked for it, and comes first now."""
        if self.held:
            os.ftruncate(self.descriptor, 0)
            os.close(self.descriptor)
            self.descriptor = -1
        if wanted:
            self._give_way_until = asyncio.get_running_loop().time() + GIVE_WAY_S


def holder(folder: Path) -> Holder | None:
    """Who holds the lease of this folder now, as it was observed without taking it; None when nobody does."""
    try:
        descriptor = os.open(folder / FILE, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _words(descriptor)
    else:
        return None
    finally:
        os.close(descriptor)


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _words(descriptor: int) -> Holder:
    who, _, what = os.pread(descriptor, WORDS_MAX_BYTES, 0).decode("utf-8", "replace").partition("\n")
    return Holder(who or "somebody", what.strip())
