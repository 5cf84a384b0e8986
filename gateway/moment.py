"""Moments as they are written, and read."""

from __future__ import annotations

from datetime import datetime

from bus.moment import rfc3339

__all__ = ["epoch", "rfc3339"]


def epoch(text: str) -> float:
    """Seconds since the epoch of an RFC 3339 moment. Raises ValueError for anything else, also without an offset."""
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(f"{text!r} says no offset from UTC")
    return moment.timestamp()
