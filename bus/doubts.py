"""Repeats whose first copy is not known here: each waits for it a moment, for it may be in madre's hands."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import NamedTuple

from bus.replies import Key


class Doubt(NamedTuple):
    """Ends with `disown`, which `timer` calls, unless the first copy comes before."""

    timer: asyncio.TimerHandle
    disown: Callable[[], None]


class Doubts:
    """By the key of the reply cache."""

    def __init__(self) -> None:
        self._waiting: dict[Key, Doubt] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    def __contains__(self, key: Key) -> bool:
        return key in self._waiting

    def add(self, key: Key, pause: float, disown: Callable[[], None]) -> None:
        """Call `disown` after `pause` seconds."""

        def over() -> None:
            del self._waiting[key]
            disown()

        self._waiting[key] = Doubt(asyncio.get_running_loop().call_later(pause, over), over)

    def resolve(self, key: Key) -> None:
        """The first copy is here."""
        if doubt := self._waiting.pop(key, None):
            doubt.timer.cancel()

    def disown_all(self) -> None:
        """No first copy comes here any more."""
        for doubt in list(self._waiting.values()):
            doubt.timer.cancel()
            doubt.disown()
