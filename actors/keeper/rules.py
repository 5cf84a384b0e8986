"""When the keeper signs, trims and looks; tests take shorter times."""

from __future__ import annotations

from dataclasses import dataclass

from bus.settings import Settings

DAYS = "VX11_EVENTS_DAYS"
DAY_S = 86_400.0


@dataclass(frozen=True)
class Rules:
    keep_s: float = 30 * DAY_S
    """Events are trimmed at this age."""
    gather_s: float = 0.04
    """After the first notice of new events others are waited for; with reading and writing that is less than 100 ms."""
    checkpoint_events: int = 1_000
    checkpoint_bytes: int = 8 * 1024 * 1024
    checkpoint_s: float = 60.0
    """A checkpoint at the latest after so many events, bytes, or seconds with something new."""
    upkeep_s: float = 5.0
    """Between two looks at the streams' ends and at what is due."""
    trim_at: float = 0.8
    """Of the stream's bound: from here on its oldest part goes, whatever its age,"""
    trim_to: float = 0.6
    """until so much is left;"""
    force_at: float = 0.9
    """from here on also what a durable consumer has not handled: else nobody could publish any more."""

    @classmethod
    def of(cls, settings: Settings) -> Rules:
        """Raises ValueError when the variable is no number of days."""
        days = settings.number(DAYS, 30)
        if not 0 < days < 100_000:
            raise ValueError(f"{DAYS}={days:g} is no age in days; write for instance {DAYS}=30")
        return cls(keep_s=days * DAY_S)
