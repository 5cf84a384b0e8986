"""A circuit breaker: after a failure nothing is tried for a while, then one attempt looks whether it works again."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Circuit:
    """`rest`: seconds without attempts after a failed one. `clock`: monotonic seconds."""

    def __init__(self, rest: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._rest = rest
        self._clock = clock
        self._broken = False
        self._again_at = 0.0
        self._looking = False

    def wait(self) -> float:
        """Seconds until an attempt may be made; 0 when one may be made now."""
        if not self._broken:
            return 0.0
        return self._rest if self._looking else max(0.0, self._again_at - self._clock())

    @contextmanager
    def trying(self) -> Iterator[Circuit]:
        """One attempt that `wait` allowed; say in the block how it ended. One that says nothing changes nothing."""
        self._looking = self._broken
        try:
            yield self
        finally:
            self._looking = False

    def succeeded(self) -> None:
        self._broken = False

    def failed(self) -> None:
        self._broken = True
        self._again_at = self._clock() + self._rest
