"""How long a provider may take for its next word."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import TypeVar

from actors.switch.asking.failure import ProviderFailed

COUNTED_SILENCE_S = 5.0
"""A silence that the caller's deadline ended counts against the provider only when it was at least this long."""

T = TypeVar("T")


@dataclass(frozen=True)
class Limits:
    """Seconds, and the bytes of one answer."""

    connect: float = 3.0
    first_token: float = 30.0
    stall: float = 15.0
    """Between two tokens."""
    tail: float = 1.0
    """For the token counts and the end mark after the answer, and for the words of an error."""
    body: int = 8 * 1024 * 1024


class Patience:
    """The clock of one answer. `until`: the caller's deadline, a moment on the loop's clock."""

    def __init__(self, limits: Limits, until: float) -> None:
        self._limits = limits
        self._until = until
        self._heard = asyncio.get_running_loop().time()
        self._allowed = limits.first_token
        self._reason = f"it said nothing within {limits.first_token:g} s"

    def heard(self) -> None:
        """A word came, and whoever listens is ready for the next: the clock starts again."""
        self._start(self._limits.stall, f"it fell silent for {self._limits.stall:g} s")

    def ending(self) -> None:
        """All that matters is here: little time is left for the rest."""
        self._start(self._limits.tail, f"it did not end within {self._limits.tail:g} s")

    async def within(self, step: Awaitable[T]) -> T:
        """What the step returns. Raises ProviderFailed when it takes too long; a TimeoutError of its own passes."""
        clock = asyncio.timeout_at(min(self._heard + self._allowed, self._until))
        try:
            async with clock:
                return await step
        except TimeoutError:
            if not clock.expired():
                raise
            raise self._late() from None

    def _start(self, allowed: float, reason: str) -> None:
        self._heard = asyncio.get_running_loop().time()
        self._allowed = allowed
        self._reason = reason

    def _late(self) -> ProviderFailed:
        if self._heard + self._allowed <= self._until:
            return ProviderFailed(self._reason)
        silence = self._until - self._heard
        blamed = silence >= COUNTED_SILENCE_S
        reason = f"the caller's time was up after {max(0.0, silence):.1f} s of silence"
        return ProviderFailed(reason, blame="provider" if blamed else "nobody")
