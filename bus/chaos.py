"""Named moments at which a test has a process killed or stopped; for everybody else a call that does nothing.

A test names a folder in VX11_CHAOS when it starts the system, and puts a file named like the moment into it when it wants the
next process that gets there struck: `kill` or `stop`, and the how-manieth time, if not the first: `kill 3`.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bus.settings import Settings

FOLDER = "VX11_CHAOS"
REACHED = ".reached"
"""Ending of the file that then has the pid of the process that was struck."""
DEEDS = {"kill": signal.SIGKILL, "stop": signal.SIGSTOP}

_folders: list[Path] = []
"""At most one; none in every ordinary process."""


def arm(settings: Settings) -> None:
    """Once in a process, before its first `point`; forked children have it from their parent."""
    _folders[:] = [Path(named) for named in (settings.get(FOLDER),) if named]


@contextmanager
def ignored() -> Iterator[None]:
    """What happens inside is no moment of anything."""
    folders, _folders[:] = list(_folders), []
    try:
        yield
    finally:
        _folders[:] = folders


def point(name: str) -> None:
    """The process is at this moment. Not for where each request of an awake actor comes along: it costs a call."""
    for folder in _folders:
        _reach(folder / name)


def _reach(order: Path) -> None:
    """A rename is done by one process only, so that of several that are here at once one is struck."""
    mine = order.with_name(f"{order.name}.{os.getpid()}")
    try:
        order.rename(mine)
    except FileNotFoundError:
        return  # not this moment, not yet, or not any more
    deed, _, nth = mine.read_text().partition(" ")
    if int(nth or 1) > 1:
        mine.write_text(f"{deed} {int(nth) - 1}")
        mine.rename(order)
        return
    mine.write_text(str(os.getpid()))
    mine.rename(f"{order}{REACHED}")
    os.kill(os.getpid(), DEEDS[deed])
