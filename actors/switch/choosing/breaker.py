"""The circuit of one provider: three failures in a row close it off, one probe may try again. Time is passed in."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, Literal

FAILURES = 3
"""In a row, until nobody asks this provider any more."""
OPEN_S = 30.0
"""Seconds until one request may try again."""
RETRY_AFTER_MAX_S = 3_600.0
"""A provider that asks for a longer rest is tried again after an hour."""

State = Literal["closed", "open", "half_open"]


@dataclass(frozen=True)
class Circuit:
    """`open_until`: a moment on the caller's monotonic clock, None while closed. `probing`: the one probe is out."""

    failures: int = 0
    open_until: float | None = None
    probing: bool = False

    def state(self, now: float) -> State:
        if self.open_until is None:
            return "closed"
        return "open" if now < self.open_until else "half_open"

    def admits(self, now: float) -> bool:
        """Whether one more request may be sent."""
        state = self.state(now)
        return state == "closed" or (state == "half_open" and not self.probing)

    def wait(self, now: float) -> float:
        """Seconds until the next request has a chance; 0.0 when it may be sent now."""
        return 0.0 if self.open_until is None else max(0.0, self.open_until - now)

    def entered(self, now: float) -> Circuit:
        """A request was sent; ask `admits` before."""
        return replace(self, probing=True) if self.state(now) == "half_open" else self

    def answered(self, *, probe: bool) -> Circuit:
        """The provider answered, be it to refuse. An answer older than the opening does not close the circuit."""
        return Circuit() if probe or self.open_until is None else self

    def failed(self, now: float, *, probe: bool, retry_after: float = 0.0) -> Circuit:
        """The provider failed. `retry_after`: seconds of rest that it asked for, which opens at once."""
        rest = min(retry_after, RETRY_AFTER_MAX_S)
        failures = self.failures + 1
        if probe or (self.open_until is None and failures >= FAILURES):
            return Circuit(failures, now + max(rest, OPEN_S))
        if rest > 0:
            return Circuit(failures, max(now + rest, self.open_until or now), self.probing)
        return replace(self, failures=failures)

    def released(self, *, probe: bool) -> Circuit:
        """The request ended without telling anything of the provider: its caller went away."""
        return replace(self, probing=False) if probe else self

    def document(self, now: float, wall_now: float) -> dict[str, Any]:
        """What outlives this process, with moments in seconds since the epoch. A probe that is out does not."""
        until = None if self.open_until is None else wall_now + self.open_until - now
        return {"failures": self.failures, "open_until": until}


def restored(document: Any, now: float, wall_now: float) -> Circuit:
    """A circuit out of what `document` has made; closed when it cannot be read. A clock that jumped opens none for long."""
    if not isinstance(document, dict):
        return Circuit()
    failures, until = document.get("failures"), document.get("open_until")
    moment = until is None or (isinstance(until, float) and math.isfinite(until))
    if not isinstance(failures, int) or failures < 0 or not moment:
        return Circuit()
    return Circuit(failures, None if until is None else now + min(until - wall_now, RETRY_AFTER_MAX_S))
