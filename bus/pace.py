"""The clock of a replay: when each event is due, without drift, and how far off it was. Pure: the time is passed in."""

from __future__ import annotations

import math

BIN_S = 0.0001
BINS = 20_000
"""Two seconds in steps of 0.1 ms; what is later counts as the last step."""


class Clock:
    """Recorded time to the monotonic clock, from an anchor: the first event, and each event at which the pace changed."""

    def __init__(self, speed: float) -> None:
        self.speed = speed
        self.wanted = 0.0
        """Seconds that all events so far should have taken, one after the other."""
        self._recorded: float | None = None
        self._anchor = self._at = 0.0

    def due(self, recorded: float, now: float) -> float:
        """When the event that was stored at `recorded` is to be sent; the first one after an anchor at once."""
        if self._recorded is None:
            self._recorded, self._anchor, self._at = recorded, now, max(self._at, recorded)
        return self._anchor + (recorded - self._recorded) / self.speed

    def sent(self, recorded: float) -> None:
        """The event that `due` was asked for has been sent; one from before its forerunner took no time."""
        self.wanted += max(0.0, recorded - self._at) / self.speed
        self._at = max(recorded, self._at)

    def held(self, seconds: float) -> None:
        """The clock has stood still for so long."""
        self._anchor += seconds

    def anchor(self) -> None:
        """The next event is due at once."""
        self._recorded = None

    def change(self, speed: float, now: float) -> None:
        """Go on from here at another speed."""
        if self._recorded is not None:
            self._recorded += (now - self._anchor) * self.speed
            self._anchor = now
        self.speed = speed


class Errors:
    """How late events were sent, counted in steps, so that a million of them take no more room than ten."""

    def __init__(self) -> None:
        self._counts = [0] * BINS
        self.number = 0

    def add(self, seconds: float) -> None:
        self._counts[min(BINS - 1, max(0, int(seconds / BIN_S)))] += 1
        self.number += 1

    def percentile_ms(self, part: float) -> float:
        """The upper end of the step that `part` (0 to 1) of all do not exceed; 0.0 without any."""
        rank, seen = math.ceil(self.number * part), 0
        for step, count in enumerate(self._counts):
            seen += count
            if seen >= rank > 0:
                return round((step + 1) * BIN_S * 1000, 1)
        return 0.0
