"""What a replay has done so far, and what of it has certainly arrived."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from datetime import datetime

from bus.pace import Errors
from bus.replay_target import Target
from schemas.replay import Gap

CONFIRM_S = 1.0
"""While events come slowly, what has arrived is asked so often: it bounds what is repeated after a break."""
GAPS_MOST = 1_000
"""Ranges that are told one by one; all are counted."""


@dataclass
class Tally:
    """Counted as it is sent. A copy is what was done up to a moment."""

    position: int = 0
    events: int = 0
    bytes: int = 0
    skipped: dict[str, int] = field(default_factory=dict)
    gaps: list[Gap] = field(default_factory=list)
    missing: int = 0
    first_at: str = ""
    last_at: str = ""

    def copy(self) -> Tally:
        return Tally(**{**vars(self), "skipped": dict(self.skipped), "gaps": list(self.gaps)})

    def skip(self, why: str) -> None:
        self.skipped[why] = self.skipped.get(why, 0) + 1

    def miss(self, first: int, last: int) -> None:
        """These sequences, both included, are not there any more."""
        self.missing += last - first + 1
        if self.gaps and self.gaps[-1].last == first - 1:
            self.gaps[-1] = Gap(first=self.gaps[-1].first, last=last)
        elif len(self.gaps) < GAPS_MOST:
            self.gaps.append(Gap(first=first, last=last))

    @property
    def recorded_s(self) -> float:
        """From the first event that was sent to the last one, as they were stored."""
        return seconds(self.last_at) - seconds(self.first_at) if self.first_at else 0.0


class Books:
    """`now`: what has been sent. `certain`: what had been when the target last said that it has all."""

    def __init__(self, position: int = 0) -> None:
        self.now = Tally(position)
        self.certain = Tally(position)
        self.repeated = 0
        self.errors = Errors()
        self._asked: tuple[Tally, asyncio.Task[None]] | None = None
        self._asked_at = 0.0

    async def confirm(self, target: Target) -> None:
        """Ask whether what has been sent has arrived, after the answer to the last such question. Raises Lost, Failure."""
        await self.confirmed()
        self._asked = self.now.copy(), asyncio.create_task(target.confirm())
        self._asked_at = time.monotonic()

    async def confirmed(self) -> None:
        """Wait for the answer to the last question. Raises Lost, Failure."""
        if self._asked:
            tally, task = self._asked
            await asyncio.wait((task,))
            self._asked = None
            task.result()
            self.certain = tally

    async def confirm_now_and_then(self, target: Target) -> None:
        """The same without waiting, when it is time; for those who have time between two events."""
        if self._asked and self._asked[1].done():
            await self.confirmed()
        waited = time.monotonic() - self._asked_at
        if not self._asked and waited >= CONFIRM_S and self.now.position != self.certain.position:
            await self.confirm(target)

    def back(self) -> None:
        """What is not certain will be sent again."""
        self.repeated += self.now.events - self.certain.events
        self.now = self.certain.copy()

    async def close(self) -> None:
        """Ask nothing more."""
        if self._asked:
            task = self._asked[1]
            self._asked = None
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


def seconds(moment: str) -> float:
    """An RFC 3339 moment in seconds since the epoch."""
    return datetime.fromisoformat(moment).timestamp()
